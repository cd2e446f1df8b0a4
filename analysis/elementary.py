"""exp and log as plain arithmetic, so that loops over them run in vector registers.

numba calls the C library for them, one number at a time, and that is most of the time of a fit.
The library's also differ from CPU to CPU in the last place. Both are good to 2 units in the last
place over the range that fits use; tests hold them to numpy's.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from analysis.compiled import compiled

LOG2_E = 1 / math.log(2)
# ln 2 in two parts: the first has few enough bits that its multiples are exact.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# Added to a number below 2^51, this leaves its nearest whole number in the lowest bits.
WHOLE = 1.5 * 2.0**52
WHOLE_BITS = int(np.array(WHOLE).view(np.int64))
BIAS = 1023 << 52  # bits of 1.0
ROOT_HALF_BITS = int(np.array(math.sqrt(0.5)).view(np.int64))
# Further out results would leave the range of doubles; e^-700 is nil beside any loss.
FURTHEST = 700.0


@intrinsic  # type: ignore[untyped-decorator]
def _bits(context: Any, number: Any) -> Any:
    """The 64 bits of a double as a whole number."""
    return types.int64(types.float64), lambda _, builder, __, arguments: builder.bitcast(
        arguments[0], ir.IntType(64)
    )


@intrinsic  # type: ignore[untyped-decorator]
def _number(context: Any, bits: Any) -> Any:
    """The double with these 64 bits."""
    return types.float64(types.int64), lambda _, builder, __, arguments: builder.bitcast(
        arguments[0], ir.DoubleType()
    )


@compiled
def exp(x: float) -> float:
    """e^x for |x| <= 700; beyond, e^(+-700)."""
    x = min(max(x, -FURTHEST), FURTHEST)
    shifted = x * LOG2_E + WHOLE
    n = shifted - WHOLE
    r = (x - n * LN2_HIGH) - n * LN2_LOW  # |r| <= ln 2 / 2
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _number((_bits(shifted) << 52) + BIAS)


@compiled
def log(x: float) -> float:
    """ln x for positive, normal x."""
    bits = _bits(x)
    n = (bits - ROOT_HALF_BITS) >> 52
    m = _number(bits - (n << 52))  # in [sqrt 1/2, sqrt 2)
    whole = _number(n + WHOLE_BITS) - WHOLE
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1.0 / 21.0
    p = p * z + 1.0 / 19.0
    p = p * z + 1.0 / 17.0
    p = p * z + 1.0 / 15.0
    p = p * z + 1.0 / 13.0
    p = p * z + 1.0 / 11.0
    p = p * z + 1.0 / 9.0
    p = p * z + 1.0 / 7.0
    p = p * z + 1.0 / 5.0
    p = p * z + 1.0 / 3.0
    return whole * LN2_HIGH + (2.0 * s + (2.0 * s * z * p + whole * LN2_LOW))
