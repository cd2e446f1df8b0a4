"""What would early stopping have saved, and which rates would it have chosen?

    python -m benchmarks.early_stopping --out benchmarks/early_stopping.csv

Goes over the curves of finished grids over learning rates, where every run was trained in full: the
runs of each arm and size enter in the grid's order, two at a time and at one speed, and the
scheduler of a sweep decides. A line a group and setting: the share of the steps that are left to
train, and by how much the validation loss (prefix key) at the rates that are then the best is above
that at the best of all. `allowed` says whether a grid may ask for it without `always`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

from analysis.tune import GROUP, LOSS
from core.memory_types import BLOCK_TYPES
from core.record import read_runs, write_csv
from sweeps import scheduling
from sweeps.scheduling import Halving

GRIDS = ("lr", "routing-rates")
REFERENCE = Path("results/reference")
SETTINGS = [(grace, reduction) for grace in (0.1, 0.25, 0.5) for reduction in (2, 3, 4)]
SLOTS = 2


def replay(curves: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """The last step of each run. `curves` by run id, in the order in which the runs begin."""
    ends = {run_id: int(curve[-1]["step"]) for run_id, curve in curves.items()}
    halving, waiting = Halving(dict(ends)), list(curves)
    running: dict[str, int] = {}
    while waiting or running:
        while waiting and len(running) < SLOTS:
            running[waiting.pop(0)] = 0
        for run_id, number in list(running.items()):
            point = curves[run_id][number]
            stopped = halving.judge(run_id, [point])
            running[run_id] += 1
            if stopped or running[run_id] == len(curves[run_id]):
                ends[run_id] = int(point["step"])
                del running[run_id]
    return ends


def measure(grid: str) -> Iterator[dict[str, Any]]:
    """Lines of one grid under the scheduler's present setting."""
    runs = read_runs(REFERENCE / grid / "runs.csv")
    points = pd.read_csv(REFERENCE / grid / "curves.csv").groupby("run_id")
    for (arm, anchor, _), group in runs.groupby(GROUP, sort=False):
        curves = {i: points.get_group(i).to_dict("records") for i in group["run_id"]}
        ends = pd.Series(replay(curves))
        steps = pd.Series({run_id: curve[-1]["step"] for run_id, curve in curves.items()})
        losses = group.set_index("run_id")[LOSS]
        first = group.iloc[0]
        routed = first["memory_type"] in BLOCK_TYPES and first["training_key"] == "document"
        yield {
            "grid": grid,
            "arm": arm,
            "anchor": anchor,
            "allowed": not routed,
            "grace": scheduling.GRACE,
            "reduction": scheduling.REDUCTION,
            "runs": len(group),
            "stopped": int((ends < steps).sum()),
            "share_trained": round(ends.sum() / steps.sum(), 3),
            "loss_above_best": round(losses[ends == steps].min() - losses.min(), 4),
        }


def main() -> None:
    """All grids under all settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    lines: list[dict[str, Any]] = []
    for grace, reduction in SETTINGS:
        with patch.multiple(scheduling, GRACE=grace, REDUCTION=reduction):
            lines += [line for grid in GRIDS for line in measure(grid)]
    table = pd.DataFrame(lines)
    write_csv(table, out)
    by = table.groupby(["allowed", "grace", "reduction"])
    print(
        by.agg(
            groups=("runs", "size"),
            share_trained=("share_trained", "mean"),
            found=("loss_above_best", lambda losses: (losses == 0).sum()),
            worst=("loss_above_best", "max"),
        )
    )


if __name__ == "__main__":
    main()
