"""The tuned learning rate of each arm and size, from the runs of a learning-rate grid."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.seeds import POINT

LOSS = "loss_validation_prefix"  # never the test loss: that one is reported
GROUP = ["arm", "anchor", "token_budget"]
RATES = ["lr", "memory_lr"]


def tune(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per arm, anchor and token budget: the rates with the lowest mean validation loss
    over seeds.

    Columns: arm, anchor, tokens, lr, memory_lr, loss_validation_prefix, lr_inside,
    memory_lr_inside, runs. A rate is inside when lower and higher ones were tried at the best
    value of the other; an arm without memory has no memory_lr, and nothing to be inside of. Runs
    without a loss, stopped early, are never the best, but their rates count as tried.
    """
    rows = [
        dict(zip(("arm", "anchor", "tokens"), point, strict=True)) | _best(group)
        for point, group in runs.groupby(GROUP, sort=True)
        if group[LOSS].notna().any()
    ]
    order = ["arm", "anchor", "tokens", *RATES, LOSS, "lr_inside", "memory_lr_inside", "runs"]
    return pd.DataFrame(rows, columns=order)


def at_best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs at the best rates of each arm, anchor and budget, where the grid varies rates.

    Chosen by validation loss, so that losses on test may be compared.
    """
    if not varies_rates(runs):
        return runs
    best = tune(runs).rename(columns={"tokens": "token_budget"})[[*GROUP, *RATES]]
    return runs.merge(best, on=[*GROUP, *RATES]).reset_index(drop=True)


def varies_rates(runs: pd.DataFrame) -> bool:
    """Whether runs that are alike in all else, seed included, differ in a learning rate."""
    alike = runs.groupby([*POINT, "seed"], dropna=False)[RATES]
    return bool((alike.nunique() > 1).any(axis=None))


def _best(group: pd.DataFrame) -> dict[str, Any]:
    means = group.groupby(RATES, dropna=False)[LOSS].mean().reset_index()
    best: Any = means.loc[int(means[LOSS].argmin())]
    return {
        "lr": float(best["lr"]),
        "memory_lr": float(best["memory_lr"]),
        LOSS: float(best[LOSS]),
        "lr_inside": _inside(means, best, "lr", "memory_lr"),
        "memory_lr_inside": bool(np.isnan(best["memory_lr"]))
        or _inside(means, best, "memory_lr", "lr"),
        "runs": group[LOSS].count(),
    }


def _inside(means: pd.DataFrame, best: Any, rate: str, other: str) -> bool:
    same = means[other].eq(best[other]) | (means[other].isna() & pd.isna(best[other]))
    tried = means.loc[same, rate]
    return bool(tried.min() < best[rate] < tried.max())


def edges(table: pd.DataFrame) -> list[str]:
    """A warning per optimum at the edge of its range."""
    return [
        f"{row['arm']} {row['anchor']}: the best {rate}, {row[rate]:g}, is at the edge; "
        "widen the grid"
        for _, row in table.iterrows()
        for rate in RATES
        if not row[f"{rate}_inside"]
    ]
