"""One table of what is measured on each run of a grid, beside the grid's table of runs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from core.errors import InputError
from core.record import Status, read_runs, write_csv

RUNS = "runs.csv"


def gather(
    grid: Path,
    runs: Path,
    name: str,
    measure: Callable[[Path], pd.DataFrame],
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Write grid/NAME.csv: the tables that `measure` gives for the folders of the done runs.

    A run's own NAME.csv, which `measure` writes, is read where it is there and as young as the
    run's weights. Runs that `measure` refuses or whose folder is not under `runs` are named by
    `say` and left out. Raises InputError where none is left.
    """
    tables = []
    ids = _done(grid)
    for place, run_id in enumerate(ids, start=1):
        try:
            tables.append(_table(runs / run_id, name, measure))
            say(f"{place} of {len(ids)}: {run_id}")
        except InputError as error:
            say(f"{place} of {len(ids)}: {run_id} left out: {error}")
    if not tables:
        raise InputError(f"{grid / RUNS}: none of its {len(ids)} runs can be asked; see above")
    frame = pd.concat(tables, ignore_index=True)
    write_csv(frame, grid / f"{name}.csv")
    return frame


def _done(grid: Path) -> list[str]:
    frame = read_runs(grid / RUNS)
    return list(frame.loc[frame["status"] == Status.DONE, "run_id"].unique())


def _table(folder: Path, name: str, measure: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    weights, kept = folder / "model.safetensors", folder / f"{name}.csv"
    if not weights.exists():
        raise InputError(f"{weights} is not there; it was trained elsewhere, so ask it there")
    if kept.exists() and kept.stat().st_mtime >= weights.stat().st_mtime:
        return pd.read_csv(kept, dtype={"run_id": str, "bucket": str})
    return measure(folder)
