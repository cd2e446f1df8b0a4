"""Profile of one parameter: the best objective at each of its values. A flat one tells nothing."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.design import Design
from analysis.fit import TOLERANCE, Prepared, prepare
from analysis.kernels import Problem
from analysis.law import Floats, Table
from analysis.newton import Bounds, minimise_many
from analysis.result import FitResult, Interval
from analysis.vectors import Terms
from core.errors import InputError

POINTS = 12  # on each side
FURTHEST_STEP = 2.0**12  # of the first step; beyond, the direction counts as flat
METHOD = "profile"


@dataclass(frozen=True)
class Profile:
    """`rise` is how far the objective lies above its minimum, in units where `limit` ends a 95 %
    interval.

    `open_sides` says where the profile never rises that far ("below", "above", both or none): the
    data set no limit there.
    """

    name: str
    value_n: Floats
    rise_n: Floats
    limit: float
    interval: Interval
    open_sides: str

    @property
    def flat(self) -> bool:
        return bool(self.open_sides)

    def to_dict(self) -> dict[str, Any]:
        """Interval and open sides, for JSON."""
        return {**self.interval.to_dict(), "no limit": self.open_sides}


def profile(result: FitResult, x: Table, y: Floats, name: str, level: float = 0.95) -> Profile:
    """Profile of the coordinate behind parameter `name`, reported as that parameter.

    The rise is the likelihood ratio's counterpart for M-estimators, `2 (R(theta) - R) / lambda`
    with `lambda = mean(psi^2) / mean(psi')`, compared with Student's t squared (Ronchetti 1982);
    for squares it is the F test.
    """
    if result.law.coordinates != result.law.parameters:
        raise InputError(
            f"law '{result.law.name}' is fitted in other coordinates; no profile of {name}"
        )
    prepared = prepare(result.law, x, y, result.objective)
    p = result.law.parameters.index(name)
    free = result.configurations - len(result.law.parameters)
    limit = float(stats.t.ppf((1 + level) / 2, max(free, 1)) ** 2)
    walk = _Walk(result, prepared, p, _unit(result, prepared))
    below, above = walk.towards(-1.0, limit), walk.towards(1.0, limit)
    points = sorted([*below.points, (walk.centre, 0.0), *above.points])
    low, high = (result.law.coordinate_value(name, end) for end in (below.end, above.end))
    values = np.array([result.law.coordinate_value(name, value) for value, _ in points])
    rises = np.array([rise for _, rise in points])
    ends = {"below": below.end, "above": above.end}
    unlimited = " and ".join(side for side, end in ends.items() if math.isinf(end))
    return Profile(name, values, rises, limit, Interval(low, high, level, METHOD), unlimited)


def profiles_of(result: FitResult, x: Table, y: Floats) -> list[Profile]:
    """Profiles of all parameters; none where there is no curve, too little data, or the law is
    fitted in other coordinates.
    """
    law = result.law
    enough = result.usable and result.configurations > len(law.parameters)
    if not enough or law.coordinates != law.parameters:
        return []
    return [profile(result, x, y, name) for name in law.parameters]


@dataclass(frozen=True)
class _Side:
    points: list[tuple[float, float]]
    end: float  # coordinate where the rise crosses the limit; infinite where it does not


class _Walk:
    """Steps away from the minimum, each fit starting from the one before."""

    def __init__(self, result: FitResult, prepared: Prepared, p: int, unit: float) -> None:
        self.problem, self.start = uncentred(prepared.design, prepared.problem, result.theta, p)
        self.prepared, self.p, self.unit = prepared, p, unit
        self.centre = float(result.theta[p])
        self.least = self._objective(self.start.copy(), self.centre)

    def towards(self, sign: float, limit: float) -> _Side:
        points: list[tuple[float, float]] = []
        step, phi = 1e-3, self.start.copy()
        offset, crossed, bound = 0.0, False, FURTHEST_STEP * 1e-3
        while len(points) < 4 * POINTS and offset < bound:
            offset += step
            rise = self._rise(phi, self.centre + sign * offset)
            if not math.isfinite(rise):
                break
            points.append((self.centre + sign * offset, rise))
            if rise > limit:
                crossed = True
                break
            step *= 2.0 if rise < limit / POINTS else 1.0
        if not crossed:
            return _Side(points, sign * math.inf)
        inner = points[-2] if len(points) > 1 else (self.centre, 0.0)
        return _Side(points, self._crossing(inner[0], points[-1][0], limit, phi))

    def _crossing(self, inside: float, outside: float, limit: float, phi: Floats) -> float:
        for _ in range(40):
            middle = 0.5 * (inside + outside)
            if self._rise(phi, middle) > limit:
                outside = middle
            else:
                inside = middle
        return 0.5 * (inside + outside)

    def _rise(self, phi: Floats, value: float) -> float:
        return (self._objective(phi, value) - self.least) * self.unit

    def _objective(self, phi: Floats, value: float) -> float:
        """Best objective with the coordinate held; phi moves along."""
        design = self.prepared.design
        bounds = Bounds(*(bound_p.copy() for bound_p in design.bounds))
        bounds.lower_p[self.p] = bounds.upper_p[self.p] = phi[self.p] = value
        start = np.clip(phi, *bounds)[None, :]
        delta = self.prepared.objective.delta
        found, _, _ = minimise_many(start, self.problem, delta, bounds, TOLERANCE)
        phi[:] = start[0]
        return float(found[0])


def uncentred(design: Design, problem: Problem, theta: Floats, p: int) -> tuple[Problem, Floats]:
    """The problem with factor p in raw units, so that it can be held; and theta in its
    coordinates.
    """
    phi = design.to_phi(theta)
    own = design.change_pp[p].copy()
    own[p] = 0.0
    phi[p] = theta[p]
    outside, inside = (
        _uncentred_terms(terms, p, own, float(design.shift_p[p]))
        for terms in (problem.outside, problem.inside)
    )
    return problem._replace(outside=outside, inside=inside), phi


def _uncentred_terms(terms: Terms, p: int, own: Floats, shift: float) -> Terms:
    """Terms with factor p: what centring took out of their slopes and offsets is put back."""
    slope_mn, offset_kn = terms.slope_mn.copy(), terms.offset_kn.copy()
    with_factor = terms.slope_mn.any(axis=1) & (terms.parameter_m == p)
    for k in set(terms.term_m[with_factor]):
        offset_kn[k] += shift
        for m in np.flatnonzero(terms.term_m == k):
            slope_mn[m] += own[terms.parameter_m[m]]
    return terms._replace(slope_mn=slope_mn, offset_kn=offset_kn)


def _unit(result: FitResult, prepared: Prepared) -> float:
    """2 / lambda, for a rise of the scaled objective; mean(psi') from a kernel density."""
    r_n, delta = result.residuals, result.objective.delta
    free = max(r_n.size - len(result.law.parameters), 1)
    psi_n = np.clip(r_n, -delta, delta)
    inside = 1.0
    if math.isfinite(delta):
        width = max(1.06 * float(np.std(r_n)) * r_n.size**-0.2, 1e-300)
        inside = float(
            np.mean(stats.norm.cdf((delta - r_n) / width) - stats.norm.cdf((-delta - r_n) / width))
        )
    scale = float(np.sum(psi_n**2)) / free / max(inside, 1e-300)
    return 2.0 / max(scale * float(prepared.problem.weight_n[0]), 1e-300)
