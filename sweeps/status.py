"""Where a grid stands: without torch, Ray or MLflow."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from core.record import RunRecord
from core.storage import CHECKPOINTS
from sweeps.grid import Grid, Trial
from sweeps.pace import DEFAULT_FLOPS_PER_SECOND, measured_rate, show_seconds, work
from sweeps.store import Store
from sweeps.text import text_table

OVER = ("done", "diverged", "stopped")
STATES = (*OVER, "running", "failed", "interrupted", "to do")


@dataclass(frozen=True)
class Standing:
    """A trial, its state, and its record or the cause of its failure."""

    trial: Trial
    state: str
    record: RunRecord | None


def standings(grid: Grid, store: Store) -> list[Standing]:
    """Every trial of a grid with its state."""
    return [_standing(trial, grid, store) for trial in grid.trials]


def _standing(trial: Trial, grid: Grid, store: Store) -> Standing:
    if record := store.finished(grid, trial):
        return Standing(trial, str(record.status), record)
    folder = store.run_folder(trial.run_id)
    if not folder.is_dir():
        return Standing(trial, "to do", None)
    if _locked(folder / "lock"):
        return Standing(trial, "running", None)
    if failure := store.failure(trial.run_id):
        return Standing(trial, "failed", failure)
    return Standing(trial, "interrupted" if (folder / CHECKPOINTS).is_dir() else "to do", None)


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def estimate(
    found: list[Standing], slots: int, calibrated: float | None = None
) -> tuple[float, str]:
    """Seconds left with `slots` trials at once, and what the estimate stands on.

    Finished runs of the grid know best, then a calibration (FLOP per second).
    """
    measured = measured_rate([s.record for s in found if s.record])
    rate = measured or calibrated or DEFAULT_FLOPS_PER_SECOND
    pending = {s.trial.run_id: s.trial for s in found if s.state not in OVER}
    seconds = [work(t.config) / rate for t in pending.values()]
    source = "a calibration" if calibrated else "a default"
    basis = "runs of this grid" if measured else f"{source} of {rate:.1e} FLOP/s"
    return max(sum(seconds) / slots, max(seconds, default=0.0)), basis


def describe_status(grid: Grid, store: Store) -> dict[str, Any]:
    """What `status --json` prints."""
    found = standings(grid, store)
    seconds, basis = estimate(found, os.cpu_count() or 1)
    return {
        "grid": grid.name,
        "question": grid.question,
        "counts": {state: Counter(s.state for s in found)[state] for state in STATES},
        "seconds_left": seconds,
        "estimated_from": basis,
        "runs": [_run_status(s) for s in found],
    }


def _run_status(standing: Standing) -> dict[str, Any]:
    record = standing.record
    loss = record.loss_test_prefix if record else math.nan
    return {
        "name": standing.trial.name,
        "run_id": standing.trial.run_id,
        "arm": standing.trial.arm,
        "state": standing.state,
        "loss_test_prefix": loss if math.isfinite(loss) else None,
        "cause": record.cause if record else "",
    }


def show_status(described: dict[str, Any]) -> str:
    """The same as text: a line an arm, then what went wrong."""
    arms = dict.fromkeys(run["arm"] for run in described["runs"])
    counts = Counter((run["arm"], run["state"]) for run in described["runs"])
    rows = [[arm, *(str(counts[arm, state]) for state in STATES)] for arm in arms]
    rows.append(["all", *(str(described["counts"][state]) for state in STATES)])
    troubles = [f"{r['state']} {r['name']}: {r['cause']}" for r in described["runs"] if r["cause"]]
    heading = f"{described['grid']}: {described['question']}"
    return "\n".join([heading, text_table(["arm", *STATES], rows), *troubles, show_left(described)])


def show_left(described: dict[str, Any]) -> str:
    """The estimated time left, and what the estimate stands on."""
    seconds = described["seconds_left"]
    if not seconds:
        return "nothing left to run"
    return f"{show_seconds(seconds)} left, from {described['estimated_from']}"
