"""MLflow, written by the driver alone: one run id is one MLflow run, whatever restarts it survived.

A point is logged once: what MLflow holds is asked once per resumed run, and when a run ends its own
curve fills what was missed. A tracker that is out of reach stops no training: the run folder keeps
everything, and the next sweep delivers it.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Concatenate, ParamSpec

import mlflow
import pandas as pd
import yaml
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType

from core.identity import tree_fingerprint
from core.record import COLUMNS, RunRecord, Status
from sweeps.grid import Grid, Trial
from sweeps.store import Store, tracking_uri

FLUSH_EVERY = 5.0  # seconds between batches of one run
BATCH = 1000  # metrics a call: MLflow's limit
CURVE = ("loss", "lr", "tokens", "tokens_per_second")
MLFLOW_STATUS = {Status.DONE: "FINISHED", Status.DIVERGED: "FINISHED", Status.FAILED: "FAILED"}
P = ParamSpec("P")


def _keeps_going(
    method: Callable[Concatenate["Tracker", P], None],
) -> Callable[Concatenate["Tracker", P], None]:
    """A tracker that fails is said once and costs no run."""

    def guarded(self: "Tracker", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            if not self.complained:
                print(f"MLflow: {error}\nthe sweep goes on; the next one delivers what is missing")
            self.complained = True

    return guarded


class _Open:
    """A run that is being logged."""

    def __init__(self, mlflow_id: str, logged: set[int]) -> None:
        self.mlflow_id, self.logged = mlflow_id, logged
        self.points: list[Mapping[str, float]] = []
        self.flushed = time.monotonic()


class Tracker:
    """A watcher that keeps every run of a grid in MLflow."""

    def __init__(self, grid: Grid, store: Store) -> None:
        """Open or create the store and the grid's experiment: once, before any trial."""
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.grid, self.store, self.complained = grid, store, False
        self.uri = tracking_uri(store.results)
        self.client = mlflow.MlflowClient(self.uri)
        self.experiment = self._experiment()
        self.open: dict[str, _Open] = {}

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.grid.name)
        if found is None:
            folder = self.store.results / "artifacts" / self.grid.name
            artifacts = folder.as_uri() if self.uri.startswith("sqlite:") else None
            tags = {"mlflow.note.content": self.grid.question}
            return str(self.client.create_experiment(self.grid.name, artifacts, tags))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    @_keeps_going
    def start(self, trial: Trial) -> None:
        """Create the trial's MLflow run, or go on with the one that it has."""
        if trial.run_id in self.open:
            return
        mlflow_id = self._find(trial)
        logged = self._reopen(mlflow_id) if mlflow_id else set()
        self.open[trial.run_id] = _Open(mlflow_id or self._create(trial), logged)

    def _find(self, trial: Trial) -> str | None:
        where = f"tags.run_id = '{trial.run_id}'"
        found = self.client.search_runs([self.experiment], where, ViewType.ALL, 1)
        return str(found[0].info.run_id) if found else None

    def _reopen(self, mlflow_id: str) -> set[int]:
        """Steps that an earlier attempt has logged; the cause of its failure goes."""
        self.client.update_run(mlflow_id, "RUNNING")
        if "cause" in self.client.get_run(mlflow_id).data.tags:
            self.client.delete_tag(mlflow_id, "cause")
        return {metric.step for metric in self.client.get_metric_history(mlflow_id, "train/loss")}

    def _create(self, trial: Trial) -> str:
        tags = {
            "run_id": trial.run_id,
            "grid": self.grid.name,
            "arm": trial.arm,
            "seed": str(trial.config.seed),
            "memory_type": trial.config.memory.type,
        }
        run = self.client.create_run(self.experiment, tags=tags, run_name=trial.name)
        mlflow_id = str(run.info.run_id)
        values = trial.config.model_dump(mode="json")
        params = [Param(key, str(value)) for key, value in flatten(values)]
        self.client.log_batch(mlflow_id, params=params)
        self.client.log_text(mlflow_id, yaml.safe_dump(values, sort_keys=False), "config.yaml")
        self.client.log_inputs(mlflow_id, [DatasetInput(_dataset(trial))])
        return mlflow_id

    @_keeps_going
    def log(self, trial: Trial, points: list[dict[str, float]]) -> None:
        """Gather points; send them in batches."""
        run = self.open[trial.run_id]
        run.points += points
        if time.monotonic() - run.flushed >= FLUSH_EVERY:
            self._flush(run)

    def _flush(self, run: _Open) -> None:
        new = [point for point in run.points if point["step"] not in run.logged]
        now = int(time.time() * 1000)
        metrics = [
            Metric(f"train/{name}", point[name], now, int(point["step"]))
            for point in new
            for name in CURVE
            if name in point
        ]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run.mlflow_id, metrics=metrics[start : start + BATCH])
        run.logged |= {int(point["step"]) for point in new}
        run.points, run.flushed = [], time.monotonic()

    @_keeps_going
    def finish(self, trial: Trial, record: RunRecord) -> None:
        """Log the record and close the MLflow run."""
        run = self.open.pop(trial.run_id)
        folder = self.store.run_folder(trial.run_id)
        if (folder / "curve.csv").exists():
            rows = pd.read_csv(folder / "curve.csv").to_dict("records")
            run.points += [{str(name): value for name, value in row.items()} for row in rows]
        self._flush(run)
        now = int(time.time() * 1000)
        row = {name: getattr(record, name) for name in COLUMNS if name not in ("grid", "arm")}
        metrics = [Metric(k, float(v), now, 0) for k, v in row.items() if _measured(v)]
        tags = [RunTag(k, str(v)) for k, v in row.items() if isinstance(v, str) and v]
        self.client.log_batch(run.mlflow_id, metrics=metrics, tags=tags)
        status = MLFLOW_STATUS[Status(record.status)]
        self.client.set_terminated(run.mlflow_id, status, _ended(record))
        if record.status != Status.FAILED:
            self.store.mark_delivered(trial.run_id)

    @_keeps_going
    def close(self) -> None:
        """What still runs was stopped."""
        while self.open:
            _, run = self.open.popitem()
            self._flush(run)
            self.client.set_terminated(run.mlflow_id, "KILLED")

    def deliver(self, trials: Iterable[Trial]) -> None:
        """Log finished runs that a killed driver or an outage kept from MLflow."""
        for trial in trials:
            record = self.store.record(trial.run_id)
            if record:
                self.start(trial)
                self.finish(trial, record)


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested values as (dotted key, value)."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _dataset(trial: Trial) -> Dataset:
    data = trial.config.data
    return Dataset(
        name=", ".join(data.corpus),
        digest=tree_fingerprint(data, trial.config.tree),
        source_type="local",
        source=json.dumps({"corpus": data.corpus}),
    )


def _measured(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _ended(record: RunRecord) -> int:
    return int(datetime.fromisoformat(record.finished).timestamp() * 1000)
