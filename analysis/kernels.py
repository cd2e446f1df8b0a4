"""The objective of a fit with its first two derivatives, compiled.

Every law here has one shape, so one kernel serves all (see law.py): the prediction of a row is
`f = s log sum_k exp(u_k)`, where `u_k = z_k . theta + offset_k` is linear in the parameters; one
term, the carrier, may subtract `rho log sum_j exp(v_j)` with linear `v_j`; `s` and `rho` are 1 or
parameters. Only slopes that are not zero are kept, one row of `slope_mn` each.

Shapes: n rows, k terms, j inner terms, m slopes, p parameters.
"""

from typing import NamedTuple

import numpy as np

from analysis.compiled import compiled
from analysis.elementary import exp
from analysis.vectors import (
    Floats,
    Terms,
    add_scaled,
    dot,
    dot3,
    exponents,
    log_sum_exp,
    two_dots,
)

Workspace = tuple[Floats, Floats, Floats, Floats, tuple[Floats, ...]]
INNER_TERMS = 2


class Problem(NamedTuple):
    """One law on one table under one objective, as arrays."""

    target_n: Floats  # log y, or y where `linear`
    weight_n: Floats  # times a row counts, times the scale of the objective
    outside: Terms
    inside: Terms  # of the carried sum; none where there is no carrier
    carrier: int  # term that carries the inner sum, or -1
    rho: int  # its parameter, or -1 for 1
    outer: int  # parameter s, or -1 for 1
    linear: bool  # residuals of y, not of log y
    asymmetry: float  # weight of rows above the curve, over 1 - the weight of those below


@compiled
def workspace(q: Problem, n_p: int) -> Workspace:
    """Room for `predict`, `objective` and `differentiate`."""
    n = q.target_n.size
    return (
        q.outside.slope_mn.copy(),
        np.empty((q.outside.offset_kn.shape[0], n)),
        np.empty((INNER_TERMS, n)),
        np.empty((n_p, n)),
        (np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)),
    )


@compiled
def predict(
    theta: Floats,
    q: Problem,
    slope_mn: Floats,
    share_kn: Floats,
    inner_share_jn: Floats,
    inner_n: Floats,
    log_n: Floats,
) -> None:
    """Log predictions into log_n, shares of the terms, and every du_k/dtheta_p into slope_mn."""
    outside, inside = q.outside, q.inside
    exponents(theta, outside, share_kn)
    if q.carrier >= 0:
        rho = theta[q.rho] if q.rho >= 0 else 1.0
        exponents(theta, inside, inner_share_jn)
        log_sum_exp(inner_share_jn, inside.constant_k, inner_n)
        add_scaled(share_kn[q.carrier], inner_n, -rho)
        for m in range(outside.term_m.size):
            if outside.term_m[m] == q.carrier:
                slope_mn[m] = outside.slope_mn[m]
                if outside.parameter_m[m] == q.rho:
                    add_scaled(slope_mn[m], inner_n, -1.0)
                for j in range(inside.term_m.size):
                    if inside.parameter_m[j] == outside.parameter_m[m]:
                        share_n = inner_share_jn[inside.term_m[j]]
                        for i in range(share_n.size):
                            slope_mn[m, i] -= rho * share_n[i] * inside.slope_mn[j, i]
    log_sum_exp(share_kn, outside.constant_k, log_n)
    if q.outer >= 0:
        log_n *= theta[q.outer]


@compiled
def _losses(
    q: Problem, delta: float, log_n: Floats, first_n: Floats, second_n: Floats, metric_n: Floats
) -> float:
    """Sum of the Huber loss over rows; weights of df and of (df)^2, and those of the metric."""
    value = 0.0
    for i in range(log_n.size):
        prediction = exp(log_n[i]) if q.linear else log_n[i]
        slope = prediction if q.linear else 1.0
        residual = q.target_n[i] - prediction
        weight = q.weight_n[i] * (q.asymmetry if residual > 0 else 2.0 - q.asymmetry)
        size = abs(residual)
        inside = size <= delta
        value += weight * (0.5 * size * size if inside else delta * (size - 0.5 * delta))
        influence = weight * (residual if inside else (delta if residual > 0 else -delta)) * slope
        first_n[i] = influence
        curvature = weight * slope * slope if inside else 0.0
        second_n[i] = curvature - (influence if q.linear else 0.0)
        metric_n[i] = curvature if inside else weight * slope * slope * delta / size
    return value


@compiled
def objective(theta: Floats, q: Problem, delta: float, work: Workspace) -> float:
    """Objective at theta; leaves in `work` what `differentiate` needs."""
    slope_mn, share_kn, inner_share_jn, _, rows = work
    predict(theta, q, slope_mn, share_kn, inner_share_jn, rows[0], rows[1])
    return reweigh(q, delta, work)


@compiled
def reweigh(q: Problem, delta: float, work: Workspace) -> float:
    """Objective at the theta of the last `objective`, under another delta."""
    _, log_n, first_n, second_n, metric_n, _ = work[4]
    return _losses(q, delta, log_n, first_n, second_n, metric_n)


@compiled
def differentiate(
    theta: Floats, q: Problem, work: Workspace, gradient: Floats, hessian: Floats, metric: Floats
) -> None:
    """Gradient, Hessian, and Gauss-Newton's matrix with weights psi(r)/r, at the last
    `objective`.
    """
    outside = q.outside
    slope_mn, share_kn, inner_share_jn, grad_pn, rows = work
    _, log_n, first_n, second_n, metric_n, scratch_n = rows
    outer = theta[q.outer] if q.outer >= 0 else 1.0
    n_p = theta.size
    grad_pn[:] = 0.0  # derivatives of log sum exp(u)
    for m in range(outside.term_m.size):
        share_n, slope_n = share_kn[outside.term_m[m]], slope_mn[m]
        grad_n = grad_pn[outside.parameter_m[m]]
        for i in range(grad_n.size):
            grad_n[i] += share_n[i] * slope_n[i]
    hessian[:] = 0.0
    if q.outer >= 0:
        for i in range(log_n.size):
            scratch_n[i] = first_n[i] * outer
        for p in range(n_p):
            for r in range(p + 1):
                hessian[p, r] = dot3(scratch_n, grad_pn[p], grad_pn[r])
    else:  # the same product as that of the rows' own curvature: added there
        add_scaled(second_n, first_n, 1.0)
    for k in range(share_kn.shape[0]):  # minus sum_k share_k du_k du_k
        share_n = share_kn[k]
        for i in range(share_n.size):
            scratch_n[i] = first_n[i] * outer * share_n[i]
        for a in range(outside.term_m.size):
            if outside.term_m[a] != k:
                continue
            for b in range(outside.term_m.size):
                if outside.term_m[b] == k and outside.parameter_m[b] <= outside.parameter_m[a]:
                    hessian[outside.parameter_m[a], outside.parameter_m[b]] -= dot3(
                        scratch_n, slope_mn[a], slope_mn[b]
                    )
    if q.carrier >= 0:
        _add_inner_curvature(theta, q, outer, share_kn, inner_share_jn, first_n, scratch_n, hessian)
    if q.outer >= 0:
        for p in range(n_p):
            cross = dot(first_n, grad_pn[p])
            hessian[max(p, q.outer), min(p, q.outer)] -= cross * (2.0 if p == q.outer else 1.0)
        grad_pn *= outer
        add_scaled(grad_pn[q.outer], log_n, 1.0 / outer)
    for p in range(n_p):
        gradient[p] = -dot(first_n, grad_pn[p])
        for r in range(p + 1):
            curvature, metric[p, r] = two_dots(second_n, metric_n, grad_pn[p], grad_pn[r])
            hessian[p, r] += curvature
            hessian[r, p], metric[r, p] = hessian[p, r], metric[p, r]


@compiled
def _add_inner_curvature(
    theta: Floats,
    q: Problem,
    outer: float,
    share_kn: Floats,
    inner_share_jn: Floats,
    first_n: Floats,
    scratch_n: Floats,
    hessian: Floats,
) -> None:
    """The carrier's own second derivatives: -rho d2v, and -dv with respect to rho."""
    inside = q.inside
    rho = theta[q.rho] if q.rho >= 0 else 1.0
    n_p, n = theta.size, first_n.size
    grad_pn = np.zeros((n_p, n))
    for i in range(n):
        scratch_n[i] = first_n[i] * outer * share_kn[q.carrier, i]
    for m in range(inside.term_m.size):
        share_n, slope_n = inner_share_jn[inside.term_m[m]], inside.slope_mn[m]
        for i in range(n):
            grad_pn[inside.parameter_m[m], i] += share_n[i] * slope_n[i]
    for a in range(inside.term_m.size):
        p = inside.parameter_m[a]
        for b in range(inside.term_m.size):
            r = inside.parameter_m[b]
            if r <= p and inside.term_m[a] == inside.term_m[b]:
                share_n = inner_share_jn[inside.term_m[a]]
                total = 0.0
                for i in range(n):
                    total += (
                        scratch_n[i] * share_n[i] * inside.slope_mn[a, i] * inside.slope_mn[b, i]
                    )
                hessian[p, r] += rho * total
    for p in range(n_p):
        for r in range(p + 1):
            hessian[p, r] -= rho * dot3(scratch_n, grad_pn[p], grad_pn[r])
        if q.rho >= 0:
            cross = dot(scratch_n, grad_pn[p])
            hessian[max(p, q.rho), min(p, q.rho)] += cross * (2.0 if p == q.rho else 1.0)
