"""Scaling laws with a memory axis, and the register of all laws.

No published law has one; these are candidates, to be chosen between by what they predict
(choice.py). M is the memory fetched for a document and W the whole bank, in parameters. `W / M`
is how many blocks' worth the bank holds: 1 for a generic memory. Each law is the dense one at M =
0.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.law import Carried, Floats, Law, Parameters, Range, Table, Term
from analysis.laws import Chinchilla, Kaplan, PowerLaw, Saturating, Tied
from core.errors import InputError

DENSE_UNITS: Mapping[str, str] = Chinchilla.units


def _worth(logs: Table) -> Term:
    """`kappa M (W / M)^omega`, nil where nothing is fetched."""
    has = np.isfinite(logs["M"])
    if (has != np.isfinite(logs["W"])).any():
        raise InputError("M and W must be zero in the same rows: no bank, nothing to fetch from it")
    with np.errstate(invalid="ignore"):
        blocks = np.where(has, logs["W"] - logs["M"], 0.0)
    return Term("kappa", {"omega": blocks}, logs["M"])


class _MemoryLaw(Law):
    inputs = ("N", "D", "M", "W")
    may_be_zero = ("M", "W")
    parameters: tuple[str, ...] = ("E", "A", "B", "alpha", "beta", "kappa", "omega")
    logarithmic: tuple[str, ...] = ("E", "A", "B", "kappa")
    units: Mapping[str, str] = {**DENSE_UNITS, "kappa": "-", "omega": "-"}

    def ranges(self) -> dict[str, tuple[Range, Range]]:
        return {**super().ranges(), "omega": ((0.0, 0.8), (-2.0, 4.0))}


def _held(x: Table, omega: float) -> Floats:
    """M (W / M)^omega, 0 at M = 0."""
    m = np.where(x["M"] > 0, x["M"], 1.0)
    return np.where(x["M"] > 0, m * (np.where(x["M"] > 0, x["W"], 1.0) / m) ** omega, 0.0)


class EffectiveParameters(_MemoryLaw):
    """A fetched parameter counts as kappa (W / M)^omega anchor parameters."""

    name = "memory-parameters"
    formula = "L = E + A / (N + kappa M (W/M)^omega)^alpha + B / D^beta"
    source = "memscale; the dense law is arXiv 2203.15556, eq. 2"

    def terms(self, logs: Table) -> Sequence[Term]:
        return Term("E"), Term("A"), Term("B", {"beta": -logs["D"]})

    def carried(self, logs: Table) -> Carried:
        return Carried(term=1, rho="alpha", terms=(Term(None, offset=logs["N"]), _worth(logs)))

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        E, A, B, alpha, beta, kappa, omega = (parameters[name] for name in self.parameters)
        return E + A / (x["N"] + kappa * _held(x, omega)) ** alpha + B / x["D"] ** beta


class AdditiveTerm(_MemoryLaw):
    """Part of the loss, T, is what memory alone can take away, whatever the anchor."""

    name = "memory-additive"
    formula = "L = E + A / N^alpha + B / D^beta + T / (1 + kappa M (W/M)^omega)"
    source = "memscale; the dense law is arXiv 2203.15556, eq. 2, with floor E + T"
    parameters = ("E", "A", "B", "T", "alpha", "beta", "kappa", "omega")
    logarithmic = ("E", "A", "B", "T", "kappa")
    units: Mapping[str, str] = {**_MemoryLaw.units, "T": "loss", "kappa": "1 / M"}

    def terms(self, logs: Table) -> Sequence[Term]:
        dense = Term("A", {"alpha": -logs["N"]}), Term("B", {"beta": -logs["D"]})
        return Term("E"), *dense, Term("T")

    def carried(self, logs: Table) -> Carried:
        return Carried(term=3, rho=None, terms=(Term(None), _worth(logs)))

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        E, A, B, T, alpha, beta, kappa, omega = (parameters[name] for name in self.parameters)
        dense = E + A / x["N"] ** alpha + B / x["D"] ** beta
        return dense + T / (1 + kappa * _held(x, omega))


class EffectiveData(_MemoryLaw):
    """Memory makes data count for more, in proportion to its share of the anchor."""

    name = "memory-data"
    formula = "L = E + A / N^alpha + B / (D (1 + kappa (M/N) (W/M)^omega))^beta"
    source = "memscale; the dense law is arXiv 2203.15556, eq. 2"

    def terms(self, logs: Table) -> Sequence[Term]:
        return Term("E"), Term("A", {"alpha": -logs["N"]}), Term("B", {"beta": -logs["D"]})

    def carried(self, logs: Table) -> Carried:
        worth = _worth(logs)
        share = Term(worth.factor, worth.slopes, worth.offset - logs["N"])
        return Carried(term=2, rho="beta", terms=(Term(None), share))

    def curve(self, parameters: Parameters, x: Table) -> Floats:
        E, A, B, alpha, beta, kappa, omega = (parameters[name] for name in self.parameters)
        data = x["D"] * (1 + kappa * _held(x, omega) / x["N"])
        return E + A / x["N"] ** alpha + B / data**beta


DENSE_LAWS: tuple[Law, ...] = (Saturating(), Chinchilla(), Tied(), Kaplan(), PowerLaw())
MEMORY_LAWS: tuple[Law, ...] = (EffectiveParameters(), AdditiveTerm(), EffectiveData())
LAWS: dict[str, Law] = {law.name: law for law in (*DENSE_LAWS, *MEMORY_LAWS)}


def find_law(name: str) -> Law:
    """A law by name. Raises InputError with the names there are."""
    if name not in LAWS:
        raise InputError(f"law '{name}' is unknown; choose one of: {', '.join(LAWS)}")
    return LAWS[name]
