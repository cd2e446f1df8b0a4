"""Loops over rows that the kernels are made of, compiled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.compiled import compiled
from analysis.elementary import exp, log

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Terms(NamedTuple):
    """Exponents `u_k = z_k . theta + offset_k`; slopes z that are nil in all rows are not kept."""

    slope_mn: Floats
    term_m: Ints  # term of each slope, ascending
    parameter_m: Ints
    offset_kn: Floats
    constant_k: Bools  # the same in every row: one exponential serves all


@compiled
def add_scaled(out_n: Floats, row_n: Floats, factor: float) -> None:
    for i in range(out_n.size):
        out_n[i] += factor * row_n[i]


@compiled
def dot(a_n: Floats, b_n: Floats) -> float:
    total = 0.0
    for i in range(a_n.size):
        total += a_n[i] * b_n[i]
    return total


@compiled
def dot3(a_n: Floats, b_n: Floats, c_n: Floats) -> float:
    total = 0.0
    for i in range(a_n.size):
        total += a_n[i] * b_n[i] * c_n[i]
    return total


@compiled
def two_dots(a_n: Floats, b_n: Floats, c_n: Floats, d_n: Floats) -> tuple[float, float]:
    """Sums of a c d and of b c d, in one pass."""
    first, second = 0.0, 0.0
    for i in range(a_n.size):
        product = c_n[i] * d_n[i]
        first += a_n[i] * product
        second += b_n[i] * product
    return first, second


@compiled
def logs(x_n: Floats) -> Floats:
    """ln x, minus infinity at zero."""
    log_n = np.empty(x_n.size)
    for i in range(x_n.size):
        log_n[i] = log(x_n[i]) if x_n[i] > 0 else -np.inf
    return log_n


@compiled
def exponents(theta: Floats, terms: Terms, out_kn: Floats) -> None:
    """u_k = z_k . theta + offset_k."""
    out_kn[:] = terms.offset_kn
    for m in range(terms.term_m.size):
        factor = theta[terms.parameter_m[m]]
        add_scaled(out_kn[terms.term_m[m]], terms.slope_mn[m], factor)


@compiled
def log_sum_exp(u_kn: Floats, constant_k: Bools, total_n: Floats) -> None:
    """total = log sum_k exp(u_k); u becomes the share of each term."""
    total_n[:] = 0.0
    for k in range(u_kn.shape[0]):
        u_n = u_kn[k]
        if constant_k[k]:
            u_n[:] = exp(u_n[0])
        else:
            for i in range(u_n.size):
                u_n[i] = exp(u_n[i])
        add_scaled(total_n, u_n, 1.0)
    for i in range(total_n.size):  # one division a row
        total_n[i] = 1.0 / total_n[i]
    for k in range(u_kn.shape[0]):
        u_n = u_kn[k]
        for i in range(u_n.size):
            u_n[i] *= total_n[i]
    for i in range(total_n.size):
        total_n[i] = -log(total_n[i])
