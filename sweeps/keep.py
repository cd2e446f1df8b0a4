"""What a grid found, to results/reference, whose runs count as done in every clone."""

import shutil
from pathlib import Path

from core.errors import InputError
from core.record import read_runs, write_runs
from sweeps.grid import load_grid

REFERENCE = "reference"
DEFAULT_GRID = "quick"  # its runs are to be trained by everyone
FILES = ("grid.yaml", "curves.csv", "probes.csv", "blocking.csv")


def keep(grid: str, results: Path) -> Path:
    """Copy the tables of results/<grid>; the folder that they are in now.

    Runs that the default grid has too go to records.csv, which figures are drawn from and which
    does not count as done. Raises InputError where there is no table yet.
    """
    folder, target = results / grid, results / REFERENCE / grid
    if not (folder / "runs.csv").is_file():
        raise InputError(f"{folder}: no runs yet; make sweep GRID={grid} first")
    frame = read_runs(folder / "runs.csv")
    everyones = frame["run_id"].isin([trial.run_id for trial in load_grid(DEFAULT_GRID).trials])
    for name, rows in (("records.csv", frame[everyones]), ("runs.csv", frame[~everyones])):
        (target / name).unlink(missing_ok=True)
        if len(rows):
            write_runs(rows, target / name)
    for path in (folder / name for name in FILES):
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    return target
