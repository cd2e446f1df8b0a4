"""What is done: records in a run's own folder and in any table say so, nothing else does.

results/runs/<run id>/record.json    written last by the run itself: done or diverged
results/runs/<run id>/stopped.json   where early stopping ended it, in a grid that asked for it; the
                                     run is not finished, and other grids train it in full
results/runs/<run id>/failure.json   why the last attempt failed; the next sweep tries again
results/<grid>/runs.csv              the grid's table, collected from both
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from core.errors import InputError
from core.planned import planned_record
from core.record import (
    COLUMNS,
    CURVE,
    RECORD,
    RunRecord,
    Status,
    read_record,
    read_runs,
    to_frame,
    write_csv,
    write_record,
    write_runs,
)
from sweeps.grid import Grid, Trial
from sweeps.storage import SharedStorage
from sweeps.tables import CURVE_COLUMNS, FINISHED, Tables, read_table

STOPPED, FAILURE = "stopped.json", "failure.json"


class Store:
    """One results folder, and the storage that machines without it leave their runs in."""

    def __init__(self, results: Path, storage: SharedStorage | None = None) -> None:
        self.results, self.storage = results.absolute(), storage
        self.tables = Tables(self.results)

    def run_folder(self, run_id: str) -> Path:
        """Where a run keeps checkpoints, curve and record."""
        return self.results / "runs" / run_id

    def record(self, run_id: str) -> RunRecord | None:
        """The record of a finished run, none if it is not finished."""
        own = self.run_folder(run_id) / RECORD
        return read_record(own) if own.exists() else self.tables.finished.get(run_id)

    def finished(self, grid: Grid, trial: Trial) -> RunRecord | None:
        """The record of a run that the grid need not train, none where it must."""
        stops = trial.arm in grid.early_stopping
        return self.record(trial.run_id) or (self._stop(grid, trial) if stops else None)

    def _stop(self, grid: Grid, trial: Trial) -> RunRecord | None:
        """The record of a run that this grid has stopped early."""
        own = self.run_folder(trial.run_id) / STOPPED
        record = read_record(own) if own.exists() else None
        if record and record.grid == grid.name:
            return record
        return self.tables.stopped.get((grid.name, trial.run_id))

    def fetch_finished(self, grid: Grid) -> None:
        """Bring here what a grid's runs left in the storage that finished elsewhere."""
        finished = self.storage.finished() if self.storage else set()
        for trial in self.pending(grid) if finished else ():
            if trial.run_id in finished:
                self.fetch(trial.run_id)

    def fetch(self, run_id: str) -> None:
        """Bring here the record of a run, if it has none here and one in the storage."""
        folder = self.run_folder(run_id)
        if self.storage and not (folder / RECORD).exists():
            self.storage.fetch(folder)

    def failure(self, run_id: str) -> RunRecord | None:
        """Why the last attempt at an unfinished run failed."""
        path = self.run_folder(run_id) / FAILURE
        return read_record(path) if path.exists() else None

    def write_failure(self, trial: Trial, cause: str) -> RunRecord:
        """Keep the cause of a failed attempt."""
        record = _ended(trial, Status.FAILED, cause)
        with suppress(OSError):  # on a full disk the cause is still shown and tracked
            write_record(record, self.run_folder(trial.run_id) / FAILURE)
        return record

    def write_stop(
        self, grid: Grid, trial: Trial, cause: str, curve: Sequence[Mapping[str, float]]
    ) -> RunRecord:
        """Keep where and why the grid stops a run early, and the run's curve so far."""
        record = _ended(trial, Status.STOPPED, cause)
        tokens = int(curve[-1]["tokens"])
        flops = record.flops_per_token * tokens
        record = replace(record, grid=grid.name, tokens=tokens, train_flops=flops)
        folder = self.run_folder(trial.run_id)
        with suppress(OSError):  # on a full disk the next sweep decides again
            points = pd.DataFrame(curve, columns=list(CURVE))
            write_csv(points, folder / "curve.csv")
            write_record(record, folder / STOPPED)
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
        todo: dict[str, Trial] = {}
        for trial in grid.trials:
            if self.finished(grid, trial) is None:
                todo.setdefault(trial.run_id, trial)
        return list(todo.values())

    def undelivered(self, grid: Grid) -> list[Trial]:
        """Trials that finished in this folder and that MLflow has not been told of."""
        told = "MLFLOW_TRACKING_URI" in os.environ or (self.results / "mlflow.db").exists()
        trials = {trial.run_id: trial for trial in reversed(grid.trials)}
        ended = {run_id: self.finished(grid, trial) for run_id, trial in trials.items()}
        return [
            trials[run_id]
            for run_id, record in ended.items()
            if record
            and self._own(record).exists()
            and not (told and self._delivered(record).exists())
        ]

    def mark_delivered(self, record: RunRecord) -> None:
        """MLflow has all of a run that ended."""
        self._delivered(record).touch()

    def _own(self, record: RunRecord) -> Path:
        """The file of a record in its run's folder."""
        name = STOPPED if record.status == Status.STOPPED else RECORD
        return self.run_folder(record.run_id) / name

    def _delivered(self, record: RunRecord) -> Path:
        """An empty file; a run that was stopped and later trained in full is delivered twice."""
        name = "stopped-delivered" if record.status == Status.STOPPED else "delivered"
        return self.run_folder(record.run_id) / name

    def collect(self, grid: Grid) -> pd.DataFrame:
        """Write the grid's table, curves and a copy of its file, unless they stand already."""
        records = [self._grid_record(grid, trial) for trial in grid.trials]
        table = to_frame(record for record in records if record)
        folder = self.results / grid.name
        path = folder / "runs.csv"
        if len(table) and not (path.exists() and _same_runs(table, read_runs(path))):
            curves = self.curves(table["run_id"].unique())
            self._keep_dropped(path, set(table["run_id"]))
            write_runs(table, path)
            write_csv(curves, folder / "curves.csv")
            shutil.copyfile(grid.path, folder / "grid.yaml")
        return table

    def _grid_record(self, grid: Grid, trial: Trial) -> RunRecord | None:
        record = self.finished(grid, trial) or self.failure(trial.run_id)
        return replace(record, grid=grid.name, arm=trial.arm) if record else None

    def _keep_dropped(self, path: Path, kept: set[str]) -> None:
        """A run that a narrowed grid drops from its table, its only place, gets a folder."""
        for record in read_table(path, *FINISHED) if path.exists() else ():
            target = self.run_folder(record.run_id) / RECORD
            if record.run_id not in kept and not target.exists():
                write_record(record, target)

    def curves(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """Points of the loss curves, as far as they are kept; columns run_id, step, tokens, ..."""
        paths = {run_id: self.run_folder(run_id) / "curve.csv" for run_id in run_ids}
        own = [pd.read_csv(path).assign(run_id=i) for i, path in paths.items() if path.exists()]
        elsewhere = [run_id for run_id, path in paths.items() if not path.exists()]
        frames = [pd.DataFrame(columns=list(CURVE_COLUMNS)), *own, *self.tables.curves(elsewhere)]
        filled = [frame for frame in frames if len(frame)] or frames
        return pd.concat(filled, ignore_index=True)[list(CURVE_COLUMNS)]


def _ended(trial: Trial, status: Status, cause: str) -> RunRecord:
    """The record of a run that ended before its last step."""
    return replace(
        planned_record(trial.config),
        run_id=trial.run_id,
        arm=trial.arm,
        status=status,
        cause=cause,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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


def _same_runs(table: pd.DataFrame, written: pd.DataFrame) -> bool:
    columns = list(COLUMNS)
    if list(written.columns) != columns or len(written) != len(table):
        return False
    keys = ["run_id", "arm", "status", "cause", "finished"]
    return bool((table[keys].to_numpy() == written[keys].to_numpy()).all())
