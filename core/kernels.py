"""Compiled loops of what a training step does between its products, on CPUs, a row at a time.

torch makes a pass over memory for each operation and for each change of precision; these make one.
bf16 comes as its bits (uint16) and is computed in fp32. All of them stay in one file: numba keeps
compiled code on disk and looks for changes in a function's own file alone.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
F = TypeVar("F", bound=Callable[..., object])
# Sums may be reordered, so that they run in vector registers; infinities keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz"}

f32: Any = np.float32
u32: Any = np.uint32
LOG2_E = f32(1.4426950)
# Taylor coefficients of 2^t, ln(2)^n / n!: on [0, 1) good to 1e-5, bf16 to 4e-3.
C1, C2, C3, C4, C5, C6 = (f32(np.log(2) ** n / np.prod(np.arange(1.0, n + 1))) for n in range(1, 7))


def compiled(function: F) -> F:
    """Compiled on first use and kept on disk; other threads go on meanwhile."""
    return cast(F, njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")(function))


@compiled
def widen(source: Bits, bits: NDArray[np.uint32]) -> None:
    """bf16 to the bits of fp32."""
    for i in range(len(source)):
        bits[i] = u32(source[i]) << u32(16)


@compiled
def narrow(bits: NDArray[np.uint32], target: Bits) -> None:
    """The bits of fp32 to the nearest bf16, ties to even."""
    for i in range(len(target)):
        odd = (bits[i] >> u32(16)) & u32(1)
        target[i] = (bits[i] + u32(0x7FFF) + odd) >> u32(16)


@compiled
def normalise(x_nd: Bits, gain_d: Floats, y_nd: Bits, inverse_n: Floats, epsilon: float) -> None:
    """RMSNorm: y = x gain / rms(x), and 1 / rms(x)."""
    n, d = x_nd.shape
    bits = np.empty(d, np.uint32)
    x = bits.view(np.float32)
    for row in range(n):
        widen(x_nd[row], bits)
        square = f32(0)
        for i in range(d):
            square += x[i] * x[i]
        inverse = f32(1) / np.sqrt(square / f32(d) + f32(epsilon))
        inverse_n[row] = inverse
        for i in range(d):
            x[i] *= inverse * gain_d[i]
        narrow(bits, y_nd[row])


@compiled
def normalise_backward(
    grad_nd: Bits, x_nd: Bits, inverse_n: Floats, gain_d: Floats, dx_nd: Bits, dgain_d: Floats
) -> None:
    """With u = x / rms and g = grad gain: dx = (g - u mean(u g)) / rms; adds to dgain."""
    n, d = x_nd.shape
    unit_bits, grad_bits = np.empty(d, np.uint32), np.empty(d, np.uint32)
    u, g = unit_bits.view(np.float32), grad_bits.view(np.float32)
    for row in range(n):
        widen(x_nd[row], unit_bits)
        widen(grad_nd[row], grad_bits)
        inverse, mean = inverse_n[row], f32(0)
        for i in range(d):
            u[i] *= inverse
            dgain_d[i] += g[i] * u[i]
            g[i] *= gain_d[i]
            mean += g[i] * u[i]
        mean /= f32(d)
        for i in range(d):
            g[i] = (g[i] - u[i] * mean) * inverse
        narrow(grad_bits, dx_nd[row])


@compiled
def sigmoid(x: Floats, power: NDArray[np.int32], y: Floats) -> None:
    """1 / (1 + 2^z), z = -x log2(e): 2^floor(z) as bits of a float, the rest as a polynomial."""
    whole = power.view(np.float32)
    for i in range(len(x)):
        z = min(max(-x[i] * LOG2_E, f32(-126)), f32(126))
        floor = np.floor(z)
        t = z - floor
        y[i] = f32(1) + t * (C1 + t * (C2 + t * (C3 + t * (C4 + t * (C5 + t * C6)))))
        power[i] = (np.int32(floor) + np.int32(127)) << np.int32(23)
    for i in range(len(x)):
        y[i] = f32(1) / (f32(1) + y[i] * whole[i])


@compiled
def gated(gate_up_nf: Bits, y_nf: Bits) -> None:
    """SwiGLU: SiLU(gate) up, gate and up side by side in each row."""
    n, f = y_nf.shape
    bits, power, s = np.empty(2 * f, np.uint32), np.empty(f, np.int32), np.empty(f, np.float32)
    both = bits.view(np.float32)
    for row in range(n):
        widen(gate_up_nf[row], bits)
        sigmoid(both[:f], power, s)
        for i in range(f):
            both[i] *= s[i] * both[f + i]
        narrow(bits[:f], y_nf[row])


@compiled
def gated_backward(grad_nf: Bits, gate_up_nf: Bits, d_gate_up_nf: Bits) -> None:
    """Gradients of `gated`, side by side like its input."""
    n, f = grad_nf.shape
    bits, power, s = np.empty(2 * f, np.uint32), np.empty(f, np.int32), np.empty(f, np.float32)
    grad_bits = np.empty(f, np.uint32)
    both, g = bits.view(np.float32), grad_bits.view(np.float32)
    for row in range(n):
        widen(gate_up_nf[row], bits)
        widen(grad_nf[row], grad_bits)
        sigmoid(both[:f], power, s)
        for i in range(f):
            gate, up = both[i], both[f + i]
            both[f + i] = g[i] * gate * s[i]
            both[i] = g[i] * up * s[i] * (f32(1) + gate * (f32(1) - s[i]))
        narrow(bits, d_gate_up_nf[row])


@compiled
def adamw_rows(
    at_u: NDArray[np.int64],
    grad_ud: Floats,
    weights_nd: Floats,
    first_nd: Floats,
    second_nd: Floats,
    steps_n: NDArray[np.int64],
    settings: tuple[float, float, float, float, float, float],
) -> None:
    """In place on the rows `at`, AdamW with the gradient clipped row by row and each row's own
    count of steps.

    `settings`: lr, beta1, beta2, weight decay, clip, epsilon.
    """
    lr, beta1, beta2, decay, clip, epsilon = settings
    b1, b2, keep, least = f32(beta1), f32(beta2), f32(1 - lr * decay), f32(epsilon)
    for u, row in enumerate(at_u):
        w, g, m, v = weights_nd[row], grad_ud[u], first_nd[row], second_nd[row]
        square = f32(0)
        for i in range(len(g)):
            square += g[i] * g[i]
        clipped = f32(min(1.0, clip / (np.sqrt(square) + epsilon)))
        steps_n[row] += 1
        scale = f32(lr / (1 - beta1 ** steps_n[row]))
        root = f32(1 / np.sqrt(1 - beta2 ** steps_n[row]))
        for i in range(len(g)):
            grad = g[i] * clipped
            m[i] = m[i] * b1 + grad * (f32(1) - b1)
            v[i] = v[i] * b2 + grad * grad * (f32(1) - b2)
            w[i] = w[i] * keep - scale * m[i] / (np.sqrt(v[i]) * root + least)


@compiled
def deal(
    rows_un: NDArray[np.uint32],
    index_b: NDArray[np.int64],
    places_cr: NDArray[np.int64],
    first: int,
    part_bcws: NDArray[np.uint16],
) -> None:
    """Each document's strips of its row of fp32, to bf16, from row `first` of its part on."""
    size = part_bcws.shape[3]
    for b, row in enumerate(index_b):
        for c in range(places_cr.shape[0]):
            for r in range(places_cr.shape[1]):
                at = places_cr[c, r]
                narrow(rows_un[row, at : at + size], part_bcws[b, c, first + r])


@compiled
def collect(
    grad_bcws: NDArray[np.uint16],
    index_b: NDArray[np.int64],
    places_cr: NDArray[np.int64],
    first: int,
    rows_un: NDArray[np.uint32],
) -> None:
    """Back to rows of fp32: sums over the documents of a row, rounded to bf16 one by one."""
    size, met_u = grad_bcws.shape[3], np.zeros(len(rows_un), np.bool_)
    bits = np.empty(size, np.uint32)
    grad, rounded = bits.view(np.float32), np.empty(size, np.uint16)
    for b, row in enumerate(index_b):
        for c in range(places_cr.shape[0]):
            for r in range(places_cr.shape[1]):
                at = places_cr[c, r]
                total_bits = rows_un[row, at : at + size]
                widen(grad_bcws[b, c, first + r], bits)
                if met_u[row]:
                    total = total_bits.view(np.float32)
                    for i in range(size):
                        grad[i] += total[i]
                    narrow(bits, rounded)
                    widen(rounded, bits)
                total_bits[:] = bits
        met_u[row] = True
    for row in np.flatnonzero(~met_u):
        for at in places_cr.flat:
            rows_un[row, at : at + size] = 0


@compiled
def mark_nonzero(rows_nd: Floats, nonzero_n: NDArray[np.bool_]) -> None:
    """Rows with anything but zeros; most have it at their first place."""
    for row in range(len(rows_nd)):
        nonzero_n[row] = False
        for i in range(rows_nd.shape[1]):
            if rows_nd[row, i] != f32(0):
                nonzero_n[row] = True
                break
