"""Variable projection: for squares of y itself, factors follow from exponents by linear algebra.

With the exponents fixed, L is a sum of known columns times factors that are not negative, so the
search runs over the exponents alone (Golub and Pereyra 1973, with Kaufman's Jacobian). It lands
the starts near minima; newton.py finishes them in all coordinates.
"""

import numpy as np
from scipy.optimize import least_squares, nnls

from analysis.design import Design
from analysis.evaluation import term_slopes
from analysis.kernels import Problem
from analysis.law import Floats

# A factor that comes out as nil starts at this share of the mean response.
NIL_FACTOR = 1e-5


def applies(design: Design, problem: Problem, delta: float) -> bool:
    """Squares of y, and a plain sum of terms that each have a factor of their own."""
    factors = design.factors
    whole = None not in factors and len(set(factors)) == len(factors)
    return problem.linear and np.isinf(delta) and whole and problem.outer < 0


def project(design: Design, problem: Problem, start: Floats) -> Floats:
    """A start moved to a least-squares minimum over the exponents; coordinates are centred [p]."""
    names = design.law.coordinates
    linear = [names.index(factor) for factor in design.factors if factor is not None]
    free = [p for p in range(len(names)) if p not in linear]
    search = _Search(problem, linear, free, start)
    lower_p, upper_p = (bound_p[free] for bound_p in design.bounds)
    inside = np.clip(start[free], lower_p + 1e-9, upper_p - 1e-9)
    found = least_squares(
        search.residuals, inside, search.jacobian, (lower_p, upper_p), x_scale="jac"
    )
    return np.clip(search.whole(found.x), *design.bounds)


class _Search:
    """Residuals as a function of the exponents alone."""

    def __init__(self, problem: Problem, linear: list[int], free: list[int], start: Floats) -> None:
        self.problem, self.linear, self.free, self.start = problem, linear, free, start
        self.root_n = np.sqrt(problem.weight_n)

    def _columns(self, exponents: Floats) -> tuple[Floats, Floats, Floats]:
        """Columns [n, k] at factors of 1, their slopes [k, p, n], and the best factors [k]."""
        phi = self.start.copy()
        phi[self.linear], phi[self.free] = 0.0, exponents
        terms_kn, slopes_kpn = term_slopes(phi, self.problem)
        columns_nk = terms_kn.T * self.root_n[:, None]
        factors_k = nnls(columns_nk, self.problem.target_n * self.root_n)[0]
        return columns_nk, slopes_kpn, factors_k

    def residuals(self, exponents: Floats) -> Floats:
        columns_nk, _, factors_k = self._columns(exponents)
        return columns_nk @ factors_k - self.problem.target_n * self.root_n

    def jacobian(self, exponents: Floats) -> Floats:
        columns_nk, slopes_kpn, factors_k = self._columns(exponents)
        moved_np = np.einsum("nk,kpn,k->np", columns_nk, slopes_kpn, factors_k)[:, self.free]
        basis, _ = np.linalg.qr(columns_nk[:, factors_k > 0])
        return np.asarray(moved_np - basis @ (basis.T @ moved_np), dtype=float)

    def whole(self, exponents: Floats) -> Floats:
        phi = self.start.copy()
        phi[self.free] = exponents
        factors_k = self._columns(exponents)[2]
        least = NIL_FACTOR * float(self.problem.target_n.mean())
        phi[self.linear] = np.log(np.maximum(factors_k, least))
        return phi
