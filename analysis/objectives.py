"""What a fit minimises: a loss of residuals, on the logarithm of y or on y itself."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.law import Floats
from core.errors import InputError

DELTA = 1e-3  # arXiv 2203.15556, D.2
# Residuals of this relative size give a scaled squares objective of about 1.
TYPICAL_RESIDUAL = 1e-2


@dataclass(frozen=True)
class Objective:
    """`sum_i w_i huber_delta(r_i)`; r = log y - log L, or y - L where `linear`.

    huber(r) = r^2/2 up to delta and delta (|r| - delta/2) beyond; delta infinite gives squares,
    and these are reported as sum r^2. Rows above the curve weigh `asymmetry`, those below 2 -
    asymmetry.
    """

    name: str
    delta: float = math.inf
    asymmetry: float = 1.0
    linear: bool = False

    def unit(self, y: Floats) -> float:
        """Residual whose square scales the objective that is minimised."""
        typical = TYPICAL_RESIDUAL * (float(np.abs(y).mean()) if self.linear else 1.0)
        return min(self.delta, typical)

    def residuals(self, y: Floats, prediction: Floats) -> Floats:
        return y - prediction if self.linear else np.log(y) - np.log(prediction)

    def total(self, residual_n: Floats) -> float:
        """The plain sum over rows."""
        weight_n = np.where(residual_n > 0, self.asymmetry, 2 - self.asymmetry)
        if math.isinf(self.delta):
            return float(np.sum(weight_n * residual_n**2))
        size_n = np.abs(residual_n)
        inside = 0.5 * residual_n**2
        outside = self.delta * (size_n - 0.5 * self.delta)
        return float(np.sum(weight_n * np.where(size_n <= self.delta, inside, outside)))


def find_objective(name: str, delta: float = DELTA, asymmetry: float = 0.2) -> Objective:
    """An objective by name.

    log-huber, log-squares, squares (of y itself), asymmetric (log-Huber whose rows above the
    curve weigh `asymmetry` against 2 - asymmetry below: a fit of the best runs rather than of the
    typical).
    """
    if not delta > 0 or not 0 < asymmetry < 2:
        raise InputError(
            f"delta {delta:g}, asymmetry {asymmetry:g}: need delta > 0, 0 < asymmetry < 2"
        )
    known = {
        "log-huber": Objective("log-huber", delta),
        "log-squares": Objective("log-squares"),
        "squares": Objective("squares", linear=True),
        "asymmetric": Objective("asymmetric", delta, asymmetry),
    }
    if name not in known:
        raise InputError(f"objective '{name}' is unknown; choose one of: {', '.join(known)}")
    return known[name]
