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
i32: Any = np.int32
u16: Any = np.uint16
u32: Any = np.uint32
LOG2_E = f32(1.4426950)
# Taylor coefficients of 2^t, ln(2)^n / n!: on [0, 1) good to 1e-5, bf16 to 4e-3.
C1, C2, C3, C4, C5, C6 = (f32(np.log(2) ** n / np.prod(np.arange(1.0, n + 1))) for n in range(1, 7))


def compiled(function: F) -> F:
    """Compiled on first use and kept on disk; other threads go on meanwhile."""
    return cast(F, njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")(function))


def inlined(function: F) -> F:
    """A part of others: where it is called for each row, a call costs as much as the row."""
    return cast(F, njit(inline="always", fastmath=FAST, error_model="numpy")(function))


@compiled
def wide(bits: np.uint16) -> np.float32:
    """bf16 in fp32."""
    x: np.float32 = u32(u32(bits) << u32(16)).view(f32)
    return x


@compiled
def nearest(x: np.float32) -> np.float32:
    """The number nearest that bf16 has, ties to even."""
    bits = f32(x).view(u32)
    odd = (bits >> u32(16)) & u32(1)
    rounded: np.float32 = u32((bits + u32(0x7FFF) + odd) & u32(0xFFFF0000)).view(f32)
    return rounded


@compiled
def narrow(x: np.float32) -> np.uint16:
    """fp32 to the nearest bf16, ties to even."""
    return u16(f32(nearest(x)).view(u32) >> u32(16))


@inlined
def inverse_rms(x_d: Bits, epsilon: float) -> np.float32:
    """1 / rms(x)"""
    square = f32(0)
    for i in range(len(x_d)):
        x = wide(x_d[i])
        square += x * x
    return f32(f32(1) / np.sqrt(square / f32(len(x_d)) + f32(epsilon)))


@compiled
def normalise(x_nd: Bits, gain_d: Floats, y_nd: Bits, inverse_n: Floats, epsilon: float) -> None:
    """RMSNorm: y = x gain / rms(x), and 1 / rms(x)."""
    for row in range(len(x_nd)):
        x, y, inverse = x_nd[row], y_nd[row], inverse_rms(x_nd[row], epsilon)
        inverse_n[row] = inverse
        for i in range(len(x)):
            y[i] = narrow(wide(x[i]) * (inverse * gain_d[i]))


@inlined
def normalise_row_backward(
    grad_d: Bits, x_d: Bits, inverse: np.float32, gain_d: Floats, dx_d: Bits, dgain_d: Floats
) -> None:
    """With u = x / rms and g = grad gain: dx = (g - u mean(u g)) / rms; adds to dgain."""
    mean = f32(0)
    for i in range(len(x_d)):
        mean += wide(grad_d[i]) * gain_d[i] * wide(x_d[i])
    mean *= inverse / f32(len(x_d))
    for i in range(len(x_d)):
        dgain_d[i] += wide(grad_d[i]) * (wide(x_d[i]) * inverse)
    for i in range(len(x_d)):
        g, u = wide(grad_d[i]) * gain_d[i], wide(x_d[i]) * inverse
        dx_d[i] = narrow((g - u * mean) * inverse)


@compiled
def normalise_backward(
    grad_nd: Bits, x_nd: Bits, inverse_n: Floats, gain_d: Floats, dx_nd: Bits, dgain_d: Floats
) -> None:
    """The same of many rows."""
    for row in range(len(x_nd)):
        normalise_row_backward(grad_nd[row], x_nd[row], inverse_n[row], gain_d, dx_nd[row], dgain_d)


@compiled
def rotated_heads(
    qkv_btw: Bits,
    angles_3tk: Floats,
    epsilon: float,
    first: int,
    gain_w: Floats,
    scale: float,
    inverse_bt: Floats,
    normed_bhtk: Bits,
    y_bhtk: Bits,
) -> None:
    """The numbers from `first` on of each token: RMSNorm, then RoPE and a scale, by heads.

    Rounded to bf16 wherever torch's operations are. `normed`, what comes before RoPE, is left out
    if empty. `angles`: cosines, and the sines by which the second half of a head enters the first
    and the first the second, zero elsewhere. With half a head of zeros on either side of a token's
    heads, one loop then sees the other half of each pair.
    """
    heads, k, w = y_bhtk.shape[1], y_bhtk.shape[3], len(gain_w)
    padded = np.zeros(w + k, np.float32)
    x = padded[k // 2 : k // 2 + w]
    for b in range(qkv_btw.shape[0]):
        for t in range(qkv_btw.shape[1]):
            own = qkv_btw[b, t, first : first + w]
            inverse = inverse_bt[b, t] = inverse_rms(own, epsilon)
            for i in range(w):
                x[i] = nearest(wide(own[i]) * (inverse * gain_w[i]))
            cos, to_first, to_second = angles_3tk[0, t], angles_3tk[1, t], angles_3tk[2, t]
            for head in range(heads):
                start, y = head * k, y_bhtk[b, head, t]
                before, here, behind = padded[start : start + k], x[start:], padded[start + k :]
                for i in range(k):
                    other = behind[i] * to_first[i] + before[i] * to_second[i]
                    y[i] = narrow(nearest(nearest(here[i] * cos[i]) + other) * f32(scale))
            for head in range(heads if len(normed_bhtk) else 0):
                y, here = normed_bhtk[b, head, t], x[head * k :]
                for i in range(k):
                    y[i] = narrow(here[i])


@compiled
def rotated_heads_backward(
    qkv_btw: Bits,
    dqkv_btw: Bits,
    angles_3tk: Floats,
    first: int,
    gain_w: Floats,
    scale: float,
    inverse_bt: Floats,
    dnormed_bhtk: Bits,
    dy_bhtk: Bits,
    dgain_w: Floats,
) -> None:
    """The same numbers' gradients, sums in torch's order; adds to dgain.

    `dnormed` is empty where there is none. `angles`: cosines, and the sines by which the second
    half's gradient enters the first's, and the first's the second's, zero elsewhere.
    """
    heads, k, w = dy_bhtk.shape[1], dy_bhtk.shape[3], len(gain_w)
    padded, dx = np.zeros(w + k, np.float32), np.empty(w, np.uint16)
    for b in range(qkv_btw.shape[0]):
        for t in range(qkv_btw.shape[1]):
            for head in range(heads):
                g, dy = padded[k // 2 + head * k :], dy_bhtk[b, head, t]
                for i in range(k):
                    g[i] = nearest(wide(dy[i]) * f32(scale))
            cos, of_second, of_first = angles_3tk[0, t], angles_3tk[1, t], angles_3tk[2, t]
            for head in range(heads):
                start = head * k
                before, behind = padded[start : start + k], padded[start + k :]
                g, d = padded[k // 2 + start :], dx[start : start + k]
                for i in range(k):
                    d[i] = narrow(behind[i] * of_second[i] + before[i] * of_first[i])
                if len(dnormed_bhtk):
                    d_normed = dnormed_bhtk[b, head, t]
                    for i in range(k):
                        d[i] = narrow(wide(d[i]) + wide(d_normed[i]))
                for i in range(k):
                    d[i] = narrow(wide(d[i]) + nearest(g[i] * cos[i]))
            own, d_own = qkv_btw[b, t, first : first + w], dqkv_btw[b, t, first : first + w]
            normalise_row_backward(dx, own, inverse_bt[b, t], gain_w, d_own, dgain_w)


@compiled
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + 2^z), z = -x log2(e): 2^floor(z) as bits of a float, the rest as a polynomial."""
    z = min(max(-x * LOG2_E, f32(-126)), f32(126))
    floor = np.floor(z)
    t = z - floor
    part = f32(1) + t * (C1 + t * (C2 + t * (C3 + t * (C4 + t * (C5 + t * C6)))))
    whole = i32(i32(i32(floor) + i32(127)) << i32(23)).view(f32)
    return f32(f32(1) / (f32(1) + part * whole))


@compiled
def gated(gate_up_nf: Bits, y_nf: Bits) -> None:
    """SwiGLU: SiLU(gate) up, gate and up side by side in each row."""
    n, f = y_nf.shape
    for row in range(n):
        gate, up, y = gate_up_nf[row, :f], gate_up_nf[row, f:], y_nf[row]
        for i in range(f):
            x = wide(gate[i])
            y[i] = narrow(x * (sigmoid(x) * wide(up[i])))


@compiled
def gated_backward(grad_nf: Bits, gate_up_nf: Bits, d_gate_up_nf: Bits) -> None:
    """Gradients of `gated`, side by side like its input."""
    n, f = grad_nf.shape
    for row in range(n):
        gate, up, grad = gate_up_nf[row, :f], gate_up_nf[row, f:], grad_nf[row]
        d_gate, d_up = d_gate_up_nf[row, :f], d_gate_up_nf[row, f:]
        for i in range(f):
            x, g = wide(gate[i]), wide(grad[i])
            s = sigmoid(x)
            d_up[i] = narrow(g * x * s)
            d_gate[i] = narrow(g * wide(up[i]) * s * (f32(1) + x * (f32(1) - s)))


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
    rows_un: Floats,
    index_b: NDArray[np.int64],
    places_cr: NDArray[np.int64],
    first: int,
    part_bcws: Bits,
) -> None:
    """Each document's strips of its row, in bf16, from row `first` of its part on."""
    size = part_bcws.shape[3]
    for b, row in enumerate(index_b):
        for c in range(places_cr.shape[0]):
            for r in range(places_cr.shape[1]):
                strip = rows_un[row, places_cr[c, r] :]
                y = part_bcws[b, c, first + r]
                for i in range(size):
                    y[i] = narrow(strip[i])


@compiled
def collect(
    grad_bcws: Bits,
    index_b: NDArray[np.int64],
    places_cr: NDArray[np.int64],
    first: int,
    rows_un: Floats,
) -> None:
    """Back to rows: sums over the documents of a row, rounded to bf16 one by one."""
    size, met_u = grad_bcws.shape[3], np.zeros(len(rows_un), np.bool_)
    for b, row in enumerate(index_b):
        for c in range(places_cr.shape[0]):
            for r in range(places_cr.shape[1]):
                strip, grad = rows_un[row, places_cr[c, r] :], grad_bcws[b, c, first + r]
                if met_u[row]:
                    for i in range(size):
                        strip[i] = nearest(strip[i] + wide(grad[i]))
                else:
                    for i in range(size):
                        strip[i] = wide(grad[i])
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
