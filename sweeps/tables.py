"""What the tables under a results folder say of runs, wherever these were trained."""

from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

import pandas as pd

from core.errors import InputError
from core.record import CURVE, RunRecord, Status, from_row, read_runs
from sweeps.grid import RESERVED

FINISHED = (Status.DONE, Status.DIVERGED)
CURVE_COLUMNS = ("run_id", *CURVE)  # of a grid's curves.csv


class Tables:
    """Every runs.csv under the results, those of the runs' own folders and caches apart."""

    def __init__(self, results: Path) -> None:
        self.results = results

    @cached_property
    def paths(self) -> list[Path]:
        """The files."""
        folders = sorted(self.results.iterdir()) if self.results.is_dir() else []
        searched = (f for f in folders if f.is_dir() and f.name not in RESERVED)
        return [path for folder in searched for path in sorted(folder.rglob("runs.csv"))]

    @cached_property
    def finished(self) -> dict[str, RunRecord]:
        """By run id."""
        return {record.run_id: record for record in self._records(*FINISHED)}

    @cached_property
    def stopped(self) -> dict[tuple[str, str], RunRecord]:
        """By the grid that stopped it, and run id."""
        return {(r.grid, r.run_id): r for r in self._records(Status.STOPPED)}

    def curves(self, run_ids: Collection[str]) -> Iterator[pd.DataFrame]:
        """Points of the runs from the curves.csv beside the tables, those of each run once."""
        wanted = set(run_ids)
        for table in self.paths if wanted else ():
            if (path := table.with_name("curves.csv")).exists():
                curves = pd.read_csv(path, dtype={"run_id": str})
                yield curves[curves["run_id"].isin(wanted)]
                wanted -= set(curves["run_id"])

    def _records(self, *statuses: Status) -> Iterator[RunRecord]:
        return (record for path in self.paths for record in read_table(path, *statuses))


def read_table(path: Path, *statuses: Status) -> Iterator[RunRecord]:
    """Rows of a runs.csv, by status. Raises InputError for a file that is no such table."""
    try:
        for row in read_runs(path).to_dict("records"):
            if row["status"] in statuses:
                yield from_row({str(k): value for k, value in row.items()})
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: no table of runs ({error}); mend it or move it away") from None
