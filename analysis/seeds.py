"""What a few seeds can say: intervals of paired values, and the smallest effect that they show.

A seed fixes the initial anchor and the order of the data, so over the seeds that two arms share
its part of the noise cancels. With two seeds there is a range and no interval.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from analysis.law import Floats

# Runs that differ in nothing but their seed (and, in a grid over rates, in these).
POINT = ["arm", "anchor", "memory_type", "placement", "n_anchor", "n_fetched", "n_bank", "tokens"]
LEAST_SEEDS = 3  # for an interval
LEVEL, POWER = 0.95, 0.8


def t_summary(values: Floats) -> tuple[float, float, str]:
    """Interval of a mean of paired values, and in words what it is; the range of fewer than
    three.
    """
    if len(values) < LEAST_SEEDS:
        what = "one seed: no interval" if len(values) == 1 else "2 seeds: range, no interval"
        return float(values.min()), float(values.max()), what
    tail = stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)
    half = float(tail * values.std(ddof=1) / np.sqrt(len(values)))
    middle = float(values.mean())
    return middle - half, middle + half, f"95 %, paired over {len(values)} seeds"


def pooled(samples: Sequence[Floats]) -> tuple[float, int]:
    """Standard deviation within samples, and its degrees of freedom."""
    free = sum(max(len(s) - 1, 0) for s in samples)
    if free == 0:
        return float("nan"), 0
    squares = sum(float(((s - s.mean()) ** 2).sum()) for s in samples if len(s) > 1)
    return float(np.sqrt(squares / free)), free


def smallest_detectable(spread: float, seeds: int, free: int) -> float:
    """Two-sided test at 5 %, power 80 %, standard deviation `spread` of one paired difference."""
    if free < 1:
        return float("nan")
    tail = stats.t.ppf(1 - (1 - LEVEL) / 2, free) + stats.t.ppf(POWER, free)
    return float(tail * spread / np.sqrt(seeds))
