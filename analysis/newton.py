"""Damped Newton with bounds, from many starts, compiled.

The summed log-Huber with delta 1e-3 is nearly a sum of absolute values: far from the optimum it
has no curvature. So every start begins with a wide delta, where least squares leads the way, and
narrows it step by step to the one asked for; only there does it count as converged.
"""

import numpy as np

from analysis.compiled import compiled
from analysis.kernels import (
    INNER_TERMS,
    MAX_STEPS,
    Floats,
    Ints,
    Problem,
    Workspace,
    differentiate,
    objective,
    predict,
    reweigh,
)

NARROWING = 0.2  # of delta, once a step promises less than
SETTLED = 0.01  # of the objective
WIDEST = 0.5  # nats


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
def workspace(q: Problem, n_p: int) -> Workspace:
    n = q.target_n.size
    return (
        q.slope_mn.copy(),
        np.empty((q.offset_kn.shape[0], n)),
        np.empty((INNER_TERMS, n)),
        np.empty((n_p, n)),
        (np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)),
    )


@compiled
def _step(
    theta: Floats,
    gradient: Floats,
    hessian: Floats,
    metric: Floats,
    lower: Floats,
    upper: Floats,
    damping: float,
    matrix: Floats,
    right: Floats,
    step: Floats,
) -> bool:
    """Newton's step over the parameters that no bound holds; metric times damping is added."""
    for p in range(theta.size):
        held_p = (theta[p] <= lower[p] and gradient[p] > 0) or (
            theta[p] >= upper[p] and gradient[p] < 0
        )
        right[p] = 0.0 if held_p else -gradient[p]
        for r in range(p + 1):
            held_r = (theta[r] <= lower[r] and gradient[r] > 0) or (
                theta[r] >= upper[r] and gradient[r] < 0
            )
            matrix[p, r] = 0.0 if held_p or held_r else hessian[p, r] + damping * metric[p, r]
        matrix[p, p] = (
            1.0 if held_p else matrix[p, p] + (damping * 1e-3 + 1e-12) * metric[p, p] + 1e-300
        )
    return _solve(matrix, right, step)


@compiled
def _projected(theta: Floats, gradient: Floats, lower: Floats, upper: Floats) -> float:
    """Largest slope that no bound holds back."""
    largest = 0.0
    for p in range(theta.size):
        inward = (theta[p] > lower[p] or gradient[p] < 0) and (
            theta[p] < upper[p] or gradient[p] > 0
        )
        if inward:
            largest = max(largest, abs(gradient[p]))
    return largest


@compiled
def _promise(
    theta: Floats,
    step: Floats,
    gradient: Floats,
    model: Floats,
    lower: Floats,
    upper: Floats,
    trial: Floats,
) -> tuple[float, float]:
    """Fills trial = theta + step within bounds; the change that the model expects, the largest
    move.
    """
    change, moved = 0.0, 0.0
    for p in range(theta.size):
        trial[p] = min(max(theta[p] + step[p], lower[p]), upper[p])
        moved = max(moved, abs(trial[p] - theta[p]))
    for p in range(theta.size):
        s_p = trial[p] - theta[p]
        change += gradient[p] * s_p
        for r in range(theta.size):
            change += 0.5 * s_p * model[p, r] * (trial[r] - theta[r])
    return change, moved


@compiled
def minimise(
    theta: Floats,
    q: Problem,
    delta: float,
    lower: Floats,
    upper: Floats,
    tolerance: float,
    work: Workspace,
) -> tuple[float, float, int]:
    """Moves theta to a minimum; returns objective, largest projected gradient, evaluations."""
    n_p = theta.size
    gradient, hessian, metric = np.empty(n_p), np.empty((n_p, n_p)), np.empty((n_p, n_p))
    matrix, right, step = np.empty((n_p, n_p)), np.empty(n_p), np.empty(n_p)
    trial = np.empty(n_p)
    width = max(delta, WIDEST) if np.isfinite(delta) else delta
    value = objective(theta, q, width, work)
    differentiate(theta, q, work, gradient, hessian, metric)
    damping, slope, used = 1e-2, np.inf, 1
    while used < MAX_STEPS:
        slope = _projected(theta, gradient, lower, upper)
        if width <= delta and slope <= tolerance:
            break
        model = hessian
        if not _step(theta, gradient, model, metric, lower, upper, damping, matrix, right, step):
            model = metric
            if not _step(
                theta, gradient, model, metric, lower, upper, damping, matrix, right, step
            ):
                break
        change, moved = _promise(theta, step, gradient, model, lower, upper, trial)
        found = objective(trial, q, width, work)
        used += 1
        if not found <= value + 1e-14 * abs(value):
            damping = max(damping * 8.0, 1e-2)
            if damping > 1e12:
                break
            continue
        gain = (value - found) / -change if change < 0 else 0.0
        damping = max(damping * 0.1, 1e-9) if gain > 0.5 else damping * (1.0 if gain > 0.1 else 4.0)
        theta[:] = trial
        value = found
        if width > delta and -change < SETTLED * value:
            width = max(delta, NARROWING * width)
            value = reweigh(q, width, work)
        elif width <= delta and moved < 1e-15:
            break
        differentiate(theta, q, work, gradient, hessian, metric)
    return value, slope, used


@compiled
def minimise_many(
    starts_sp: Floats, q: Problem, delta: float, lower: Floats, upper: Floats, tolerance: float
) -> tuple[Floats, Floats, Ints]:
    """`minimise` from every row of starts_sp, in place; objective, slope, evaluations of each."""
    n_s, n_p = starts_sp.shape
    value_s, slope_s = np.empty(n_s), np.empty(n_s)
    used_s = np.empty(n_s, dtype=np.int64)
    work = workspace(q, n_p)
    for s in range(n_s):
        value_s[s], slope_s[s], used_s[s] = minimise(
            starts_sp[s], q, delta, lower, upper, tolerance, work
        )
    return value_s, slope_s, used_s


@compiled
def minimise_reweighted(
    start: Floats,
    q: Problem,
    times_bn: Floats,
    delta: float,
    lower: Floats,
    upper: Floats,
    tolerance: float,
) -> tuple[Floats, Floats]:
    """Refits from one start, row n counted times_bn[b, n] times; minima [b, p] and their slopes
    [b].
    """
    n_b, n_p = times_bn.shape[0], start.size
    phi_bp, slope_b = np.empty((n_b, n_p)), np.empty(n_b)
    work = workspace(q, n_p)
    base_n = q.weight_n.copy()
    for b in range(n_b):
        phi_bp[b] = start
        for i in range(base_n.size):
            q.weight_n[i] = base_n[i] * times_bn[b, i]
        _, slope_b[b], _ = minimise(phi_bp[b], q, delta, lower, upper, tolerance, work)
    q.weight_n[:] = base_n
    return phi_bp, slope_b


def derivatives(theta: Floats, q: Problem, delta: float) -> tuple[float, Floats, Floats, Floats]:
    """Objective, gradient, Hessian and Gauss-Newton matrix at theta."""
    n_p = theta.size
    gradient, hessian, metric = np.empty(n_p), np.empty((n_p, n_p)), np.empty((n_p, n_p))
    work = workspace(q, n_p)
    value = objective(theta, q, delta, work)
    differentiate(theta, q, work, gradient, hessian, metric)
    return float(value), gradient, hessian, metric


def term_shares(theta: Floats, q: Problem) -> tuple[Floats, Floats]:
    """Share of each outer term in each prediction [k, n], and the log predictions [n]."""
    slope_mn, share_kn, inner_share_jn, _, rows = workspace(q, theta.size)
    predict(theta, q, slope_mn, share_kn, inner_share_jn, rows[0], rows[1])
    return share_kn, rows[1]


def term_slopes(theta: Floats, q: Problem) -> tuple[Floats, Floats]:
    """The outer terms [k, n], and the slopes of their exponents [k, p, n]."""
    work = workspace(q, theta.size)
    slope_mn, share_kn, inner_share_jn, _, rows = work
    predict(theta, q, slope_mn, share_kn, inner_share_jn, rows[0], rows[1])
    slopes_kpn = np.zeros((share_kn.shape[0], theta.size, share_kn.shape[1]))
    for m, (k, p) in enumerate(zip(q.term_m, q.parameter_m, strict=True)):
        slopes_kpn[k, p] = slope_mn[m]
    return share_kn * np.exp(rows[1]), slopes_kpn
