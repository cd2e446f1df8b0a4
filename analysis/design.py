"""A law on a table, as arrays for the kernels, in coordinates in which it is well conditioned.

In raw units `log A` and `alpha` are all but collinear (log N is 20 give or take 2), and their
values depend on the unit of N. The centred coordinates replace the factor of each term by the
term's mean exponent over the rows, its mean log contribution: an affine change `phi = S theta +
s`, undone after the fit. So a fit depends on no unit, and one set of starts and bounds serves
every table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.kernels import Problem
from analysis.law import Floats, Law, Table, Term
from analysis.newton import Bounds
from analysis.objectives import Objective
from analysis.vectors import Terms, logs
from core.errors import InputError

# Of a term's mean log contribution against the mean log response: starts, and bounds.
FACTOR_STARTS, FACTOR_BOUNDS = (-3.0, 0.2), (-14.0, 6.0)
# Of a carried term against the first term of its sum.
CARRIED_STARTS, CARRIED_BOUNDS = (-5.0, 2.0), (-16.0, 12.0)


@dataclass(frozen=True)
class Design:
    """Rows, terms and the affine change to centred coordinates: phi = change_pp @ theta +
    shift_p.
    """

    law: Law
    factors: tuple[str | None, ...]  # of the outer terms
    problem: Problem  # target and weights of no objective yet
    change_pp: Floats
    shift_p: Floats
    start_box: Floats  # [2, p], of phi: low and high
    bounds: Bounds  # of phi

    def to_theta(self, phi: Floats) -> Floats:
        """Coordinates [p], or of many fits [p, b]."""
        moved = (phi.T - self.shift_p).T
        return moved - self._mixed(moved)

    def to_phi(self, theta: Floats) -> Floats:
        """The inverse of `to_theta`."""
        return ((theta + self._mixed(theta)).T + self.shift_p).T

    def _mixed(self, coordinates: Floats) -> Floats:
        """What exponents add to factors, [p] or [p, b]: (change_pp - 1) @ coordinates.

        As factors add to nothing, subtracting it undoes adding it. Summed in order, for BLAS sums
        in another one on another CPU.
        """
        mixed_pp = self.change_pp - np.eye(len(self.change_pp))
        products = map(np.multiply.outer, mixed_pp.T, coordinates)
        return np.sum(list(products), axis=0)

    def under(self, objective: Objective, y: Floats, weight_n: Floats) -> Problem:
        """The problem under an objective; weights are scaled so that 1 % residuals give about 1."""
        unit = objective.unit(y)
        return self.problem._replace(
            target_n=y if objective.linear else logs(y),
            weight_n=weight_n / (weight_n.sum() * unit**2),
            linear=objective.linear,
            asymmetry=objective.asymmetry,
        )


def build_design(law: Law, x: Table, y: Floats) -> Design:
    """Arrays of `law` on the columns x; y [n] only places starts and bounds."""
    known = logarithms(law, x)
    names = law.coordinates
    terms, carried = law.terms(known), law.carried(known)
    centre = _Centring(names, y.size)
    outer = [centre.centred(term) for term in terms]
    inner: list[_Row] = []
    if carried:
        anchor = float(np.mean(np.broadcast_to(carried.terms[0].offset, y.size)))
        inner = [centre.centred(term, anchor) for term in carried.terms]
        carrier = terms[carried.term]
        if carried.rho is None:
            centre.shift_p[names.index(_factor(carrier))] -= anchor
        else:
            centre.change_pp[names.index(_factor(carrier)), names.index(carried.rho)] -= anchor
            outer[carried.term].slopes.setdefault(names.index(carried.rho), np.zeros(y.size))
        for row in inner:  # the kernels differentiate the carrier by the inner parameters too
            for p in row.slopes:
                outer[carried.term].slopes.setdefault(p, np.zeros(y.size))
    outside, inside = _stack(outer, y.size), _stack(inner, y.size)
    if carried:
        outside.constant_k[carried.term] = False  # the carried sum varies over rows
    problem = Problem(
        y,
        np.ones(y.size),
        outside,
        inside,
        carrier=carried.term if carried else -1,
        rho=names.index(carried.rho) if carried and carried.rho else -1,
        outer=names.index(law.outer) if law.outer else -1,
        linear=False,
        asymmetry=1.0,
    )
    carried_factors = [t.factor for t in carried.terms] if carried else []
    start_box, bounds = _boxes(law, carried_factors, float(logs(y).mean()))
    factors = tuple(t.factor for t in terms)
    return Design(law, factors, problem, centre.change_pp, centre.shift_p, start_box, bounds)


@dataclass
class _Row:
    slopes: dict[int, Floats]
    offset_n: Floats

    @property
    def constant(self) -> bool:
        """Whether all rows are the same."""
        return all(bool((v == v[0]).all()) for v in (self.offset_n, *self.slopes.values()))


class _Centring:
    """Takes the mean exponent out of each term and into its factor."""

    def __init__(self, names: Sequence[str], n: int) -> None:
        self.names, self.n = names, n
        self.change_pp, self.shift_p = np.eye(len(names)), np.zeros(len(names))

    def centred(self, term: Term, anchor: float = 0.0) -> _Row:
        offset_n = np.broadcast_to(np.asarray(term.offset, dtype=float), self.n)
        present = np.isfinite(offset_n)
        if term.factor is None:
            slopes = {self.names.index(c): np.array(v, dtype=float) for c, v in term.slopes.items()}
            return _Row(slopes, offset_n - anchor)
        own = self.names.index(term.factor)
        slopes = {own: np.ones(self.n)}
        middle = float(offset_n[present].mean()) if present.any() else 0.0
        self.shift_p[own] += middle - anchor
        for coordinate, slope_n in term.slopes.items():
            p = self.names.index(coordinate)
            mean = float(slope_n[present].mean()) if present.any() else 0.0
            self.change_pp[own, p] += mean
            slopes[p] = np.where(present, slope_n - mean, 0.0)
        return _Row(slopes, offset_n - middle)


def _stack(rows: Sequence[_Row], n: int) -> Terms:
    flat = [(k, p, slope_n) for k, row in enumerate(rows) for p, slope_n in row.slopes.items()]
    return Terms(
        slope_mn=np.array([slope_n for _, _, slope_n in flat]).reshape(len(flat), n),
        term_m=np.array([k for k, _, _ in flat], dtype=np.int64),
        parameter_m=np.array([p for _, p, _ in flat], dtype=np.int64),
        offset_kn=np.array([row.offset_n for row in rows]).reshape(len(rows), n),
        constant_k=np.array([row.constant for row in rows], dtype=bool),
    )


def _factor(term: Term) -> str:
    if term.factor is None:
        raise AssertionError("the term that carries a sum has a factor")
    return term.factor


def _boxes(law: Law, carried: Sequence[str | None], level: float) -> tuple[Floats, Bounds]:
    """Starts and bounds of every coordinate, centred; `level` is the mean log response."""
    ranges = law.ranges()
    starts, bounds = [], []
    for name in law.coordinates:
        if name in ranges:
            start, bound = ranges[name]
        elif name in carried:
            start, bound = CARRIED_STARTS, CARRIED_BOUNDS
        else:
            start = (level + FACTOR_STARTS[0], level + FACTOR_STARTS[1])
            bound = (level + FACTOR_BOUNDS[0], level + FACTOR_BOUNDS[1])
        starts.append(start)
        bounds.append(bound)
    return np.array(starts).T.copy(), Bounds(*np.array(bounds).T.copy())


def logarithms(law: Law, x: Table) -> dict[str, Floats]:
    """Logs of the law's inputs. Raises InputError for a missing column or values that have none."""
    found = {}
    for name in law.inputs:
        if name not in x:
            raise InputError(f"law '{law.name}' needs {', '.join(law.inputs)}; '{name}' is missing")
        column = np.asarray(x[name], dtype=float)
        least = 0.0 if name in law.may_be_zero else np.finfo(float).tiny
        bad = ~(np.isfinite(column) & (column >= least))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            allowed = "zero or positive" if name in law.may_be_zero else "positive"
            raise InputError(
                f"{name} is {column[row]:g} in row {row + 1} (and {int(bad.sum()) - 1} others); "
                f"it must be {allowed} and finite: correct or drop these rows"
            )
        found[name] = logs(column)
    return found
