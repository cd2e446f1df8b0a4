"""The memory law of a grid: chosen by held-out error, and what follows from it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.choice import Choice, choose, largest
from analysis.comparisons import GENERIC, RANDOM
from analysis.intervals import Fitted, fit_with_intervals
from analysis.law import Floats
from analysis.memory_laws import MEMORY_LAWS, find_law
from analysis.multiplier import DENSE
from analysis.planner import BYTES, Budget, Plan, iso_loss, plan
from analysis.runs import main_budget

# A law with a data term and a memory axis needs as many budgets and sizes to be told apart.
LEAST_BUDGETS, LEAST_SIZES = 3, 4
FRONTIER_POINTS = 40
KIND = ["memory_type", "placement"]
FRONTIER_QUANTILES = (0.25, 0.5, 0.75)  # of the measured losses


@dataclass(frozen=True)
class MemoryLaw:
    """The winner fitted to all runs, frontiers and the best split of the largest budget by it."""

    choice: Choice
    fitted: Fitted
    frontier: pd.DataFrame  # loss, n_fetched, n_anchor
    plan: Plan | None  # None where the fit has a warning status
    budget: Budget


def choose_memory_law(runs: pd.DataFrame, loss: str) -> MemoryLaw | None:
    """Between the memory laws, the largest anchors held out; None where the grid varies too
    little.
    """
    runs = _one_kind(runs[runs[loss].notna()])
    varied = runs["tokens"].nunique() >= LEAST_BUDGETS and runs["n_anchor"].nunique() >= LEAST_SIZES
    if not varied or not (runs["n_fetched"] > 0).any():
        return None
    x, y = memory_inputs(runs), runs[loss].to_numpy(dtype=float)
    choice = choose(MEMORY_LAWS, x, y, largest(x["N"]))
    fitted = fit_with_intervals(find_law(str(choice.table.loc[0, "law"])), x, y)
    budget = largest_budget(runs)
    best = plan(fitted.result, budget, x, fitted.boot) if fitted.result.converged else None
    return MemoryLaw(choice, fitted, _frontier(fitted, runs, loss), best, budget)


def _one_kind(runs: pd.DataFrame) -> pd.DataFrame:
    """Dense and generic runs, and those of the commonest type and placement of routed memory."""
    control = runs["memory_type"].isin([DENSE, GENERIC])
    routed = runs[~control & (runs["embedder"] != RANDOM)]
    if not len(routed):
        return runs[control]
    counts = routed[KIND].value_counts(sort=False)  # sorted, equals would stand as the CPU likes
    alike = (routed[KIND] == list(counts.index[int(counts.argmax())])).all(axis=1)
    return pd.concat([runs[control], routed[alike]])


def memory_inputs(runs: pd.DataFrame) -> dict[str, Floats]:
    """N as the anchor alone; fetched and bank apart."""
    columns = {"N": "n_anchor", "D": "tokens", "M": "n_fetched", "W": "n_bank"}
    return {name: runs[column].to_numpy(dtype=float) for name, column in columns.items()}


def largest_budget(runs: pd.DataFrame) -> Budget:
    """The most FLOPs, runtime and bank that any run of the grid had."""
    return Budget(
        flops=float(runs["train_flops"].max()),
        ram_bytes=BYTES * float(runs["n_runtime"].max()),
        flash_bytes=BYTES * float(runs["n_bank"].max()),
    )


def _frontier(fitted: Fitted, runs: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Anchor against fetched memory at quartiles of the losses, at the main budget."""
    if not fitted.result.usable:
        return pd.DataFrame(columns=["loss", "n_fetched", "n_anchor"])
    memory = runs[runs["n_fetched"] > 0]
    fetched = np.geomspace(memory["n_fetched"].min(), memory["n_fetched"].max(), FRONTIER_POINTS)
    blocks = float((memory["n_bank"] / memory["n_fetched"]).median())
    tokens = main_budget(runs)
    losses = runs.loc[runs["tokens"] == tokens, loss]
    law, parameters = fitted.result.law, fitted.result.parameters
    rows = [
        pd.DataFrame(
            {
                "loss": level,
                "n_fetched": fetched,
                "n_anchor": iso_loss(law, parameters, level, fetched, blocks, tokens),
            }
        )
        for level in losses.quantile(list(FRONTIER_QUANTILES))
    ]
    return pd.concat(rows, ignore_index=True)
