"""What is done: records in a run's own folder and in any table say so, nothing else does.

results/runs/<run id>/record.json    written last by the run itself: done or diverged
results/runs/<run id>/failure.json   why the last attempt failed; the next sweep tries again
results/<grid>/runs.csv              the grid's table, collected from both
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from core.accounting import count_parameters, training_flops_per_token
from core.errors import InputError
from core.record import (
    COLUMNS,
    RunRecord,
    Status,
    from_row,
    read_record,
    read_runs,
    to_frame,
    write_csv,
    write_record,
    write_runs,
)
from sweeps.grid import RESERVED, Grid, Trial

DELIVERED = "delivered"  # empty file in a run's folder
FINISHED = (Status.DONE, Status.DIVERGED)
CURVE_COLUMNS = ("run_id", "step", "tokens", "loss", "lr")


class Store:
    """One results folder."""

    def __init__(self, results: Path) -> None:
        self.results = results.absolute()

    def run_folder(self, run_id: str) -> Path:
        """Where a run keeps checkpoints, curve and record."""
        return self.results / "runs" / run_id

    def record(self, run_id: str) -> RunRecord | None:
        """The record of a finished run, none if it is not finished."""
        own = self.run_folder(run_id) / "record.json"
        return read_record(own) if own.exists() else self._tabled.get(run_id)

    def failure(self, run_id: str) -> RunRecord | None:
        """Why the last attempt at an unfinished run failed."""
        path = self.run_folder(run_id) / "failure.json"
        return read_record(path) if path.exists() else None

    def write_failure(self, trial: Trial, cause: str) -> RunRecord:
        """Keep the cause of a failed attempt."""
        config, counts = trial.config, count_parameters(trial.config)
        record = RunRecord(
            run_id=trial.run_id,
            arm=trial.arm,
            status=Status.FAILED,
            cause=cause,
            seed=config.seed,
            anchor=f"{config.anchor.layers}x{config.anchor.d_model}",
            memory_type=config.memory.type,
            lr=config.train.lr,
            n_anchor=counts.anchor,
            n_embed=counts.embed,
            n_fetched=counts.fetched,
            n_bank=counts.bank,
            n_runtime=counts.runtime,
            flops_per_token=training_flops_per_token(config),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with suppress(OSError):  # on a full disk the cause is still shown and tracked
            write_record(record, self.run_folder(trial.run_id) / "failure.json")
        return record

    @contextmanager
    def only_driver(self) -> Iterator[None]:
        """Raises InputError where another sweep runs in this folder, or it cannot be written.

        The system lets go of the lock when a driver is killed. Bad input that ends the sweep leaves
        no folder that was not there before, but for a cache that the next sweep can use.
        """
        lock = FileLock(self.results / "sweep.lock", timeout=0)
        new = not self.results.exists()
        try:
            self.results.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise InputError(
                f"another sweep runs in {self.results}; wait for it, stop it, "
                "or give RESULTS=another folder"
            ) from None
        except OSError as error:
            raise InputError(f"{self.results}: cannot be written ({error})") from None
        try:
            yield
        except InputError:
            if new:
                _remove_locks(self.results)
            raise
        finally:
            lock.release()

    def pending(self, grid: Grid) -> list[Trial]:
        """Trials that are not finished, each run once."""
        trials = {trial.run_id: trial for trial in reversed(grid.trials)}
        return [trial for trial in reversed(trials.values()) if self.record(trial.run_id) is None]

    def undelivered(self, grid: Grid) -> list[Trial]:
        """Trials that finished in this folder and that MLflow has not been told of."""
        told = "MLFLOW_TRACKING_URI" in os.environ or (self.results / "mlflow.db").exists()
        trials = {trial.run_id: trial for trial in reversed(grid.trials)}
        folders = {run_id: self.run_folder(run_id) for run_id in trials}
        return [
            trials[run_id]
            for run_id, folder in folders.items()
            if (folder / "record.json").exists() and not (told and (folder / DELIVERED).exists())
        ]

    def mark_delivered(self, run_id: str) -> None:
        """MLflow has all of a finished run."""
        (self.run_folder(run_id) / DELIVERED).touch()

    def collect(self, grid: Grid) -> pd.DataFrame:
        """Write the grid's table, curves and a copy of its file, unless they stand already."""
        records = [self._grid_record(grid, trial) for trial in grid.trials]
        table = to_frame(record for record in records if record)
        folder = self.results / grid.name
        path = folder / "runs.csv"
        if len(table) and not (path.exists() and _same_runs(table, read_runs(path))):
            curves = self._curves(table["run_id"].unique())
            self._keep_dropped(path, set(table["run_id"]))
            write_runs(table, path)
            write_csv(curves, folder / "curves.csv")
            shutil.copyfile(grid.path, folder / "grid.yaml")
        return table

    def _grid_record(self, grid: Grid, trial: Trial) -> RunRecord | None:
        record = self.record(trial.run_id) or self.failure(trial.run_id)
        return replace(record, grid=grid.name, arm=trial.arm) if record else None

    def _keep_dropped(self, path: Path, kept: set[str]) -> None:
        """A run that a narrowed grid drops from its table, its only place, gets a folder."""
        for run_id, record in _table_records(path) if path.exists() else ():
            target = self.run_folder(run_id) / "record.json"
            if run_id not in kept and not target.exists():
                write_record(record, target)

    @cached_property
    def _tabled(self) -> dict[str, RunRecord]:
        return {run_id: record for path in self._tables for run_id, record in _table_records(path)}

    @cached_property
    def _tables(self) -> list[Path]:
        """Every runs.csv under the results, those of the runs' own folders and caches apart."""
        folders = sorted(self.results.iterdir()) if self.results.is_dir() else []
        searched = (f for f in folders if f.is_dir() and f.name not in RESERVED)
        return [path for folder in searched for path in sorted(folder.rglob("runs.csv"))]

    def _curves(self, run_ids: Iterable[str]) -> pd.DataFrame:
        frames, elsewhere = [pd.DataFrame(columns=list(CURVE_COLUMNS))], set()
        for run_id in run_ids:
            path = self.run_folder(run_id) / "curve.csv"
            if path.exists():
                frames.append(pd.read_csv(path).assign(run_id=run_id))
            else:
                elsewhere.add(run_id)
        for table in self._tables if elsewhere else ():
            if (path := table.with_name("curves.csv")).exists():
                curves = pd.read_csv(path)
                frames.append(curves[curves["run_id"].isin(elsewhere)])
                elsewhere -= set(curves["run_id"])
        filled = [frame for frame in frames if len(frame)] or frames
        return pd.concat(filled, ignore_index=True)[list(CURVE_COLUMNS)]


def tracking_uri(results: Path) -> str:
    """MLFLOW_TRACKING_URI, or a database in the results folder at an absolute address."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.absolute()}/mlflow.db"


def _remove_locks(folder: Path) -> None:
    """Locks, and folders that then hold nothing."""
    for path in folder.rglob("*.lock"):
        path.unlink()
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _table_records(path: Path) -> Iterator[tuple[str, RunRecord]]:
    try:
        for row in read_runs(path).to_dict("records"):
            if row["status"] in FINISHED:
                yield str(row["run_id"]), from_row({str(k): value for k, value in row.items()})
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: no table of runs ({error}); mend it or move it away") from None


def _same_runs(table: pd.DataFrame, written: pd.DataFrame) -> bool:
    columns = list(COLUMNS)
    if list(written.columns) != columns or len(written) != len(table):
        return False
    keys = ["run_id", "arm", "status", "cause", "finished"]
    return bool((table[keys].to_numpy() == written[keys].to_numpy()).all())
