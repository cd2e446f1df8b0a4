"""Compute-optimal sizes of a grid's dense runs: by iso-FLOP curves and by training curves."""

from dataclasses import dataclass

import pandas as pd

from analysis.isoflop import LEAST_SIZES, MinimumStatus, envelope, isoflop_minima, optimum_law
from analysis.multiplier import DENSE
from analysis.result import FitResult


@dataclass(frozen=True)
class Optima:
    """Approach 2 and Approach 1 of arXiv 2203.15556; empty where the grid does not allow them."""

    minima: pd.DataFrame  # of iso-FLOP curves
    isoflop_law: FitResult | None  # size = k C^p through them
    curves: pd.DataFrame  # dense training curves, with n, flops_per_token and flops
    lowest: pd.DataFrame  # the envelope of the curves
    envelope_law: FitResult | None


def find_optima(runs: pd.DataFrame, curves: pd.DataFrame, split: str) -> Optima:
    """From the dense runs of all arms; sizes are runtime parameters."""
    dense = runs[(runs["memory_type"] == DENSE) & runs[f"loss_{split}_prefix"].notna()]
    minima = isoflop_minima(dense, "n_runtime", "train_flops", f"loss_{split}_prefix")
    minima = minima[minima["status"] != MinimumStatus.TOO_FEW] if len(minima) else minima
    trained = _trained(dense, curves)
    lowest = envelope(trained) if trained["n"].nunique() >= LEAST_SIZES else pd.DataFrame()
    return Optima(minima, _law(minima), trained, lowest, _law(lowest))


def _trained(dense: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    known = dense.drop_duplicates("run_id")[["run_id", "n_runtime", "flops_per_token"]]
    joined = curves.merge(known.rename(columns={"n_runtime": "n"}), on="run_id")
    joined = joined.assign(flops=joined["flops_per_token"] * joined["tokens"])
    return joined[joined["flops"] > 0]


def _law(optima: pd.DataFrame) -> FitResult | None:
    found = optima[optima["status"] == MinimumStatus.FOUND] if "status" in optima else optima
    return optimum_law(found) if len(found) else None
