"""Damped Newton with bounds, from many starts, compiled.

The summed log-Huber with delta 1e-3 is nearly a sum of absolute values: far from the optimum it
has no curvature. So every start begins with a wide delta, where least squares leads the way, and
narrows it step by step to the one asked for; only there does it count as converged.
"""

from typing import NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.kernels import Problem, Workspace, differentiate, objective, reweigh, workspace
from analysis.vectors import Floats, Ints

# Enough for a few rows whose kinks leave one curved valley: there a step is short.
MAX_STEPS = 5000
NARROWING = 0.2  # of delta, once a step promises less than
SETTLED = 0.01  # of the objective
WIDEST = 0.5  # nats
NEAR = 1e-3  # of the range between bounds; closer, a slope outward leads onto the bound
LARGEST_DAMPING = 1e12
ROUNDING = 1e-13  # of the objective, which cannot judge a step that promises less


class Bounds(NamedTuple):
    lower_p: Floats
    upper_p: Floats


class Local(NamedTuple):
    """The objective about a point."""

    gradient_p: Floats
    hessian_pp: Floats
    metric_pp: Floats  # Gauss-Newton's matrix: never indefinite


class Room(NamedTuple):
    """Scratch of one step."""

    matrix_pp: Floats
    right_p: Floats
    step_p: Floats
    trial_p: Floats


@compiled
def local(n_p: int) -> Local:
    return Local(np.empty(n_p), np.empty((n_p, n_p)), np.empty((n_p, n_p)))


@compiled
def _solve(matrix: Floats, right: Floats, step: Floats) -> bool:
    """Cholesky in place; False where the matrix is not positive definite."""
    n = right.size
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not total > 1e-14 * matrix[i, i]:
                    return False
                matrix[i, i] = np.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    for i in range(n):
        total = right[i]
        for k in range(i):
            total -= matrix[i, k] * step[k]
        step[i] = total / matrix[i, i]
    for i in range(n - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, n):
            total -= matrix[k, i] * step[k]
        step[i] = total / matrix[i, i]
    return True


@compiled
def _outward(theta: Floats, at: Local, bounds: Bounds, p: int, near: float) -> bool:
    """Whether descent leads out of a bound that is this near."""
    room = near * (bounds.upper_p[p] - bounds.lower_p[p])
    return (theta[p] <= bounds.lower_p[p] + room and at.gradient_p[p] > 0) or (
        theta[p] >= bounds.upper_p[p] - room and at.gradient_p[p] < 0
    )


@compiled
def _step(
    theta: Floats, at: Local, curvature: Floats, bounds: Bounds, damping: float, room: Room
) -> bool:
    """Newton's step; what a bound stops goes onto it, and the others do without (Bertsekas 1982).

    Damping adds to the curvature that many times the metric.
    """
    matrix, right = room.matrix_pp, room.right_p
    for p in range(theta.size):
        right[p] = -at.gradient_p[p]
        for r in range(p + 1):
            matrix[p, r] = curvature[p, r] + damping * at.metric_pp[p, r]
        matrix[p, p] += (damping * 1e-3 + 1e-12) * at.metric_pp[p, p] + 1e-300
    for p in range(theta.size):
        if _outward(theta, at, bounds, p, NEAR):
            matrix[p, :p] = 0.0
            matrix[p:, p] = 0.0
            matrix[p, p] = 1.0 + damping
            right[p] = (bounds.lower_p[p] if right[p] < 0 else bounds.upper_p[p]) - theta[p]
    return _solve(matrix, right, room.step_p)


@compiled
def _steepest(theta: Floats, at: Local, bounds: Bounds) -> float:
    """Largest slope that no bound holds back."""
    largest = 0.0
    for p in range(theta.size):
        if not _outward(theta, at, bounds, p, 0.0):
            largest = max(largest, abs(at.gradient_p[p]))
    return largest


@compiled
def _promise(
    theta: Floats, at: Local, curvature: Floats, bounds: Bounds, room: Room
) -> tuple[float, float]:
    """Fills the trial, within bounds; the change that the model expects, the largest move."""
    trial, change, moved = room.trial_p, 0.0, 0.0
    for p in range(theta.size):
        trial[p] = min(max(theta[p] + room.step_p[p], bounds.lower_p[p]), bounds.upper_p[p])
        moved = max(moved, abs(trial[p] - theta[p]))
    for p in range(theta.size):
        s_p = trial[p] - theta[p]
        change += at.gradient_p[p] * s_p
        for r in range(theta.size):
            change += 0.5 * s_p * curvature[p, r] * (trial[r] - theta[r])
    return change, moved


@compiled
def minimise(
    theta: Floats, q: Problem, delta: float, bounds: Bounds, tolerance: float, work: Workspace
) -> tuple[float, float, int]:
    """Moves theta to a minimum; returns objective, largest projected gradient, evaluations."""
    n_p = theta.size
    at = local(n_p)
    room = Room(np.empty((n_p, n_p)), np.empty(n_p), np.empty(n_p), np.empty(n_p))
    width = max(delta, WIDEST) if np.isfinite(delta) else delta
    value = objective(theta, q, width, work)
    differentiate(theta, q, work, at.gradient_p, at.hessian_pp, at.metric_pp)
    damping, slope, used = 1e-2, np.inf, 1
    while used < MAX_STEPS:
        slope = _steepest(theta, at, bounds)
        if width <= delta and slope <= tolerance:
            break
        curvature = at.hessian_pp
        if not _step(theta, at, curvature, bounds, damping, room):
            curvature = at.metric_pp
            if not _step(theta, at, curvature, bounds, damping, room):
                break
        change, moved = _promise(theta, at, curvature, bounds, room)
        found = objective(room.trial_p, q, width, work)
        used += 1
        noise = ROUNDING * abs(value)
        if not found <= value + noise:
            damping = max(damping * 8.0, 1e-2)
            if damping > LARGEST_DAMPING:
                break
            continue
        gain = (value - found) / -change if change < 0 else 0.0
        if abs(change) < noise:
            gain = 1.0
        damping = max(damping * 0.1, 1e-9) if gain > 0.5 else damping * (1.0 if gain > 0.1 else 4.0)
        theta[:] = room.trial_p
        value = found
        if width > delta and -change < SETTLED * value:
            width = max(delta, NARROWING * width)
            value = reweigh(q, width, work)
        elif width <= delta and moved < 1e-15:
            break
        differentiate(theta, q, work, at.gradient_p, at.hessian_pp, at.metric_pp)
    return value, slope, used


@compiled
def minimise_many(
    starts_sp: Floats, q: Problem, delta: float, bounds: Bounds, tolerance: float
) -> tuple[Floats, Floats, Ints]:
    """`minimise` from every row of starts_sp, in place; objective, slope, evaluations of each."""
    n_s, n_p = starts_sp.shape
    value_s, slope_s = np.empty(n_s), np.empty(n_s)
    used_s = np.empty(n_s, dtype=np.int64)
    work = workspace(q, n_p)
    for s in range(n_s):
        value_s[s], slope_s[s], used_s[s] = minimise(
            starts_sp[s], q, delta, bounds, tolerance, work
        )
    return value_s, slope_s, used_s


@compiled
def minimise_reweighted(
    start: Floats, q: Problem, times_bn: Floats, delta: float, bounds: Bounds, tolerance: float
) -> tuple[Floats, Floats]:
    """Refits from one start, row n counted times_bn[b, n] times; minima [b, p], slopes [b]."""
    n_b, n_p = times_bn.shape[0], start.size
    phi_bp, slope_b = np.empty((n_b, n_p)), np.empty(n_b)
    work = workspace(q, n_p)
    base_n = q.weight_n.copy()
    for b in range(n_b):
        phi_bp[b] = start
        for i in range(base_n.size):
            q.weight_n[i] = base_n[i] * times_bn[b, i]
        _, slope_b[b], _ = minimise(phi_bp[b], q, delta, bounds, tolerance, work)
    q.weight_n[:] = base_n
    return phi_bp, slope_b
