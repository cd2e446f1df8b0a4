"""What the kernels know at one point, for all that is no search."""

import numpy as np

from analysis.kernels import Problem, differentiate, objective, predict, workspace
from analysis.newton import Local, local
from analysis.vectors import Floats


def derivatives(theta: Floats, q: Problem, delta: float) -> tuple[float, Local]:
    """Objective at theta; its gradient, Hessian and Gauss-Newton matrix."""
    at, work = local(theta.size), workspace(q, theta.size)
    value = objective(theta, q, delta, work)
    differentiate(theta, q, work, *at)
    return float(value), at


def term_shares(theta: Floats, q: Problem) -> tuple[Floats, Floats]:
    """Share of each outer term in each prediction [k, n], and the log predictions [n]."""
    _, share_kn, log_n = _predict(theta, q)
    return share_kn, log_n


def term_slopes(theta: Floats, q: Problem) -> tuple[Floats, Floats]:
    """The outer terms [k, n], and the slopes of their exponents [k, p, n]."""
    slope_mn, share_kn, log_n = _predict(theta, q)
    slopes_kpn = np.zeros((share_kn.shape[0], theta.size, share_kn.shape[1]))
    for m, (k, p) in enumerate(zip(q.outside.term_m, q.outside.parameter_m, strict=True)):
        slopes_kpn[k, p] = slope_mn[m]
    return share_kn * np.exp(log_n), slopes_kpn


def _predict(theta: Floats, q: Problem) -> tuple[Floats, Floats, Floats]:
    slope_mn, share_kn, inner_share_jn, _, rows = workspace(q, theta.size)
    predict(theta, q, slope_mn, share_kn, inner_share_jn, rows[0], rows[1])
    return slope_mn, share_kn, rows[1]
