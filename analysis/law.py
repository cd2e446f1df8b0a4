"""What a scaling law is: formula, units, source, and the terms that give value and gradient.

A law here is `log L = s log sum_k exp(u_k)` with `u_k` linear in its coordinates: a factor such
as `A` enters as its logarithm, an exponent as itself, and then `A / N^alpha = exp(log A - alpha
log N)`. One term may carry a second sum, as `A / (N + c M)^alpha` does. kernels.py differentiates
this shape once for all; `curve` states the same formula plainly, and tests hold the two and the
derivatives together.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError

Floats = NDArray[np.float64]
Parameters = Mapping[str, float]
Table = Mapping[str, Floats]
Range = tuple[float, float]


@dataclass(frozen=True)
class Term:
    """`exp(factor + sum_c slope_c c + offset)`: factor and slopes name coordinates; arrays are
    [n].
    """

    factor: str | None
    slopes: Mapping[str, Floats] = field(default_factory=dict)
    offset: Floats | float = 0.0


@dataclass(frozen=True)
class Carried:
    """`-rho log sum_j exp(v_j)`, added to the exponent of one term. rho None stands for 1."""

    term: int
    rho: str | None
    terms: tuple[Term, ...]


class Law(ABC):
    """`inputs` are columns of a table; `parameters` are reported, `logarithmic` ones fitted as
    logs.
    """

    name: str
    formula: str
    source: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    logarithmic: tuple[str, ...]
    units: Mapping[str, str]
    outer: str | None = None  # coordinate that multiplies the log of the sum
    may_be_zero: tuple[str, ...] = ()  # inputs of which a row may have none

    @property
    def coordinates(self) -> tuple[str, ...]:
        """What is fitted, in order; one for one with `parameters`."""
        return self.parameters

    @abstractmethod
    def terms(self, logs: Table) -> Sequence[Term]:
        """The outer terms, from the logarithms of the inputs."""

    def carried(self, logs: Table) -> Carried | None:
        """The inner sum, if the law has one."""
        return None

    @abstractmethod
    def curve(self, parameters: Parameters, x: Table) -> Floats:
        """The formula, plainly: predictions [n] in the unit of the fitted loss."""

    def to_parameters(self, theta: Floats) -> dict[str, float]:
        """Coordinates to the parameters that papers print."""
        return {
            name: float(np.exp(value)) if name in self.logarithmic else float(value)
            for name, value in zip(self.parameters, theta, strict=True)
        }

    def coordinate_value(self, name: str, value: float) -> float:
        """The coordinate behind one parameter, in the unit that the parameter is reported in."""
        return float(np.exp(value)) if name in self.logarithmic else value

    def to_coordinates(self, parameters: Parameters) -> Floats:
        """The inverse of `to_parameters`. Raises InputError where a factor is not positive."""
        values = []
        for name in self.parameters:
            value = float(parameters[name])
            if name in self.logarithmic and value <= 0:
                raise InputError(f"{self.name}: {name} is {value:g}; it must be positive")
            values.append(np.log(value) if name in self.logarithmic else value)
        return np.array(values)

    def ranges(self) -> dict[str, tuple[Range, Range]]:
        """Where starts lie and where bounds stand, for coordinates that are no term's factor."""
        exponents = (c for c in self.coordinates if c not in self.logarithmic)
        return dict.fromkeys(exponents, ((0.05, 1.0), (0.0, 4.0)))
