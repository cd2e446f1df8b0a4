"""Fits a law to a table: many starts, one minimum, and an honest word on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from analysis import varpro
from analysis.design import Design, build_design
from analysis.evaluation import derivatives, term_shares
from analysis.kernels import Problem
from analysis.law import Floats, Law, Table
from analysis.newton import minimise_many
from analysis.objectives import Objective, find_objective
from analysis.result import FitResult, FitStatus
from core.errors import InputError

STARTS = 256
# Of them, how many go through variable projection first, where it applies.
PROJECTED = 8
# Largest slope left in the scaled objective: parameters are then good to about 1e-9.
TOLERANCE = 1e-7
# Two starts agree when their scaled objectives do to this, relative and absolute.
SAME = 1e-6
# Fewer starts at the minimum than this share, and it may not be the lowest.
AGREEMENT = 0.02
# Beyond this condition number rounding, not data, chooses the parameters.
FLAT = 1e6
# A term with a smaller share of every prediction is nil.
NIL = 1e-5


@dataclass(frozen=True)
class Prepared:
    """A table ready to fit under one law and objective; bootstrap and profiles use it again."""

    design: Design
    problem: Problem
    objective: Objective
    y: Floats
    configuration_n: NDArray[np.int64]  # rows of one configuration share a number

    @property
    def configurations(self) -> int:
        return int(self.configuration_n.max()) + 1


def prepare(law: Law, x: Table, y: Floats, objective: Objective) -> Prepared:
    """Checks a table. Raises InputError for losses that are missing, infinite or not positive."""
    y = np.asarray(y, dtype=float)
    bad = ~(np.isfinite(y) & (y > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the fitted value is {y[row]:g} in row {row + 1} and {int(bad.sum()) - 1} others; it "
            "must be positive and finite: drop diverged or unfinished runs first"
        )
    if y.size == 0:
        raise InputError("no rows to fit; check the file and --where")
    columns = {name: np.asarray(values, dtype=float) for name, values in x.items()}
    design = build_design(law, columns, y)
    inputs = np.column_stack([columns[name] for name in law.inputs])
    _, configuration_n = np.unique(inputs, axis=0, return_inverse=True)
    problem = design.under(objective, y, np.ones(y.size))
    return Prepared(design, problem, objective, y, configuration_n.ravel().astype(np.int64))


def fit(
    law: Law, x: Table, y: Floats, objective: Objective | None = None, starts: int = STARTS
) -> FitResult:
    """Fit `law` to columns x and losses y [n]; log-Huber with delta 1e-3 unless told otherwise.

    Starts are a fixed low-discrepancy set, so the same table gives the same answer. No more
    distinct configurations than parameters give a result without parameters, never an exception: a
    law that can pass through every point says nothing.
    Raises InputError for values that no law can be fitted to.
    """
    prepared = prepare(law, x, y, objective or find_objective("log-huber"))
    if prepared.configurations <= len(law.parameters):
        return _too_few(law, prepared)
    phi_sp = start_points(prepared.design, starts)
    if varpro.applies(prepared.design, prepared.problem, prepared.objective.delta):
        for s in range(min(PROJECTED, starts)):
            phi_sp[s] = varpro.project(prepared.design, prepared.problem, phi_sp[s])
    value_s, slope_s, _ = minimise_many(
        phi_sp,
        prepared.problem,
        prepared.objective.delta,
        prepared.design.bounds,
        TOLERANCE,
    )
    best = int(np.nanargmin(value_s))
    agreeing = int(np.sum(value_s <= value_s[best] * (1 + SAME) + SAME * 1e-3))
    return conclude(law, prepared, phi_sp[best], float(slope_s[best]), starts, agreeing)


def start_points(design: Design, count: int) -> Floats:
    """[count, p] points of a Halton sequence in the start box."""
    unit_sp = qmc.Halton(design.start_box.shape[1], scramble=False).random(count + 1)[1:]
    low_p, high_p = design.start_box
    return np.ascontiguousarray(low_p + unit_sp * (high_p - low_p))


def conclude(
    law: Law, prepared: Prepared, phi: Floats, gradient: float, starts: int, agreeing: int
) -> FitResult:
    """The result at a minimum, with the status that it deserves."""
    theta = prepared.design.to_theta(phi)
    parameters = law.to_parameters(theta)
    condition, loose = conditioning(prepared, phi)
    status, reason = _judge(law, prepared, phi, gradient, condition, loose, starts, agreeing)
    residuals = prepared.objective.residuals(prepared.y, np.exp(log_predictions(prepared, phi)))
    return FitResult(
        law=law,
        objective=prepared.objective,
        theta=theta,
        parameters=parameters,
        value=prepared.objective.total(residuals),
        status=status,
        reason=reason,
        notes=_notes(law, prepared),
        n=prepared.y.size,
        configurations=prepared.configurations,
        starts=starts,
        agreeing=agreeing,
        gradient=gradient,
        condition=condition,
        residuals=residuals,
    )


def log_predictions(prepared: Prepared, phi: Floats) -> Floats:
    """Log of the predicted loss [n]."""
    return _shares(prepared, phi)[1]


def conditioning(prepared: Prepared, phi: Floats) -> tuple[float, tuple[str, ...]]:
    """Condition number of the Jacobian with columns of one length, and who shares its loosest
    directions.
    """
    smooth = prepared.problem._replace(weight_n=np.ones(prepared.y.size))
    metric = derivatives(phi, smooth, np.inf)[1].metric_pp  # J^T J
    length_p = np.sqrt(np.diag(metric))
    names = np.array(prepared.design.law.coordinates)
    if not length_p.all():
        return np.inf, tuple(names[length_p == 0])
    values, vectors = np.linalg.eigh(metric / np.outer(length_p, length_p))
    condition = np.sqrt(values[-1] / values[0]) if values[0] > 0 else np.inf
    loose = values <= max(values[0], values[-1] / FLAT**2)
    return float(condition), tuple(names[(np.abs(vectors[:, loose]) > 0.1).any(axis=1)])


def _shares(prepared: Prepared, phi: Floats) -> tuple[Floats, Floats]:
    return term_shares(phi, prepared.problem)


def _judge(
    law: Law,
    prepared: Prepared,
    phi: Floats,
    gradient: float,
    condition: float,
    loose: tuple[str, ...],
    starts: int,
    agreeing: int,
) -> tuple[FitStatus, str]:
    """The first trouble there is, gravest first."""
    if not gradient <= 100 * TOLERANCE:
        return FitStatus.NOT_CONVERGED, f"a slope of {gradient:.1g} is left in the scaled objective"
    if condition > FLAT:
        return FitStatus.FLAT, f"the data cannot tell {', '.join(loose)} apart"
    held = _at_bound(law, prepared, phi)
    if held:
        return FitStatus.AT_BOUND, f"{', '.join(held)} at the edge of what is allowed"
    if agreeing < max(2, AGREEMENT * starts):
        return (
            FitStatus.STARTS_DISAGREE,
            f"{agreeing} of {starts} starts reached the lowest minimum",
        )
    repeats = _repeats(prepared)
    if repeats:
        return FitStatus.DUPLICATED_ROWS, f"{repeats} rows repeat others to the last digit"
    return FitStatus.CONVERGED, ""


def _at_bound(law: Law, prepared: Prepared, phi: Floats) -> list[str]:
    """Coordinates at their bounds, and factors whose term is nil in every row."""
    low_p, high_p = prepared.design.bounds
    near = 1e-6 * (high_p - low_p)
    held = (phi <= low_p + near) | (phi >= high_p - near)
    share_k = _shares(prepared, phi)[0].max(axis=1)
    factors = prepared.design.factors
    nil = {factor for factor, share in zip(factors, share_k, strict=True) if share < NIL}
    return [name for p, name in enumerate(law.coordinates) if held[p] or name in nil]


def _repeats(prepared: Prepared) -> int:
    rows = np.column_stack([prepared.configuration_n, prepared.y])
    return len(rows) - len(np.unique(rows, axis=0))


def _notes(law: Law, prepared: Prepared) -> tuple[str, ...]:
    n, p = prepared.configurations, len(law.parameters)
    few = n < 2 * p
    return (f"few data: {p} parameters from {n} configurations",) if few else ()


def _too_few(law: Law, prepared: Prepared) -> FitResult:
    nothing = np.full(len(law.parameters), np.nan)
    return FitResult(
        law=law,
        objective=prepared.objective,
        theta=nothing,
        parameters=dict.fromkeys(law.parameters, float("nan")),
        value=float("nan"),
        status=FitStatus.NOT_ENOUGH_DATA,
        reason=f"{len(law.parameters)} parameters from {prepared.configurations} configurations",
        notes=(),
        n=prepared.y.size,
        configurations=prepared.configurations,
        starts=0,
        agreeing=0,
        gradient=float("nan"),
        condition=float("nan"),
        residuals=np.full(prepared.y.size, np.nan),
    )
