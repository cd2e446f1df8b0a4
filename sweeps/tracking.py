"""MLflow, written by the driver alone: one run id is one MLflow run, whatever restarts it survived.

A point is logged once: what MLflow holds is asked when a run is opened, and when a run ends its own
curve fills what was missed. A tracker that is out of reach stops no training: what it was not told
is kept and sent when it answers again, by this sweep or, from the runs' folders, by the next.
"""

import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType

from core.identity import tree_fingerprint
from core.record import COLUMNS, RunRecord, Status
from sweeps.grid import Grid, Trial
from sweeps.mlflow_client import connect
from sweeps.store import Store, tracking_uri
from sweeps.tables import FINISHED

FLUSH_EVERY = 5.0  # seconds between batches of one run
ASK_AGAIN = 10.0  # seconds until a tracker that did not answer is asked again
BATCH = 1000  # metrics a call: MLflow's limit
LOGGED = ("loss", "lr", "tokens", "tokens_per_second")
MLFLOW_STATUS = dict.fromkeys(Status, "FINISHED") | {Status.FAILED: "FAILED"}
DESCRIBED = "described"  # tag of a run that has its parameters, config and data
Point = Mapping[str, float]


@dataclass
class _Open:
    """A run that is being logged, and the steps that MLflow holds of it."""

    mlflow_id: str
    logged: set[int]
    flushed: float = field(default_factory=time.monotonic)


class Tracker:
    """A watcher that keeps every run of a grid in MLflow."""

    def __init__(self, grid: Grid, store: Store) -> None:
        for name in ("mlflow", "alembic"):  # what goes wrong is said once, in a line
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.grid, self.store = grid, store
        self.open: dict[str, _Open] = {}
        # What MLflow has yet to be told.
        self.running: dict[str, Trial] = {}
        self.points: defaultdict[str, list[Point]] = defaultdict(list)
        self.ended: list[tuple[Trial, RunRecord | None]] = []
        self.quiet_until, self.complained = 0.0, False

    def start(self, trial: Trial) -> None:
        """Create the trial's MLflow run, or go on with the one that it has."""
        self.running[trial.run_id] = trial
        self._send()

    def log(self, trial: Trial, points: list[dict[str, float]]) -> None:
        """Gather points; send them in batches."""
        self.points[trial.run_id] += points
        self._send()

    def finish(self, trial: Trial, record: RunRecord) -> None:
        """Log the record and close the MLflow run."""
        self.running.pop(trial.run_id, None)
        self.ended.append((trial, record))
        self._send()

    def close(self) -> None:
        """What still runs was interrupted."""
        self.ended += [(trial, None) for trial in self.running.values()]
        self.running, self.quiet_until = {}, 0.0
        self._send()

    def deliver(self, trials: Iterable[Trial]) -> None:
        """Log finished runs that a killed driver or an outage kept from MLflow."""
        records = ((trial, self.store.finished(self.grid, trial)) for trial in trials)
        self.ended += [(trial, record) for trial, record in records if record]
        self._send()

    def _send(self) -> None:
        """Tell MLflow what is due; where it does not answer, nothing is forgotten."""
        if time.monotonic() < self.quiet_until:
            return
        try:
            while self.ended:
                self._end(*self.ended[0])
                self.ended.pop(0)
            for trial in self.running.values():
                self._keep_up(trial)
        except Exception as error:  # whatever it is, training goes on
            self.open.clear()  # how much of the last call arrived is not known: ask again
            self.quiet_until = time.monotonic() + ASK_AGAIN
            if not self.complained:
                print(f"MLflow: {error}\nthe sweep goes on and delivers what is missing later")
            self.complained = True

    @cached_property
    def client(self) -> mlflow.MlflowClient:
        """Raises InputError for an address that MLflow does not understand."""
        return connect(self.store.results)

    @cached_property
    def experiment(self) -> str:
        """The grid's experiment."""
        found = self.client.get_experiment_by_name(self.grid.name)
        if found is None:
            folder = self.store.results / "artifacts" / self.grid.name
            local = tracking_uri(self.store.results).startswith("sqlite:")
            artifacts = folder.as_uri() if local else None
            tags = {"mlflow.note.content": self.grid.question}
            return str(self.client.create_experiment(self.grid.name, artifacts, tags))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _keep_up(self, trial: Trial) -> None:
        run = self._opened(trial)
        if time.monotonic() - run.flushed >= FLUSH_EVERY:
            self._flush(trial, run)

    def _opened(self, trial: Trial) -> _Open:
        if trial.run_id not in self.open:
            found = self._find(trial)
            self.open[trial.run_id] = self._reopen(trial, found) if found else self._create(trial)
        return self.open[trial.run_id]

    def _find(self, trial: Trial) -> str | None:
        where = f"tags.run_id = '{trial.run_id}'"
        found = self.client.search_runs([self.experiment], where, ViewType.ALL, 1)
        return str(found[0].info.run_id) if found else None

    def _reopen(self, trial: Trial, mlflow_id: str) -> _Open:
        """Go on with an earlier attempt; the cause of its failure goes."""
        self.client.update_run(mlflow_id, "RUNNING")
        tags = self.client.get_run(mlflow_id).data.tags
        if DESCRIBED not in tags:
            self._describe(trial, mlflow_id)
        if "cause" in tags:
            self.client.delete_tag(mlflow_id, "cause")
        history = self.client.get_metric_history(mlflow_id, "train/loss")
        return _Open(mlflow_id, {metric.step for metric in history})

    def _create(self, trial: Trial) -> _Open:
        tags = {
            "run_id": trial.run_id,
            "grid": self.grid.name,
            "arm": trial.arm,
            "seed": str(trial.config.seed),
            "memory_type": trial.config.memory.type,
        }
        run = self.client.create_run(self.experiment, tags=tags, run_name=trial.name)
        self._describe(trial, str(run.info.run_id))
        return _Open(str(run.info.run_id), set())

    def _describe(self, trial: Trial, mlflow_id: str) -> None:
        values = trial.config.model_dump(mode="json")
        params = [Param(key, str(value)) for key, value in flatten(values)]
        self.client.log_batch(mlflow_id, params=params)
        self.client.log_text(mlflow_id, yaml.safe_dump(values, sort_keys=False), "config.yaml")
        self.client.log_inputs(mlflow_id, [DatasetInput(_dataset(trial))])
        self.client.set_tag(mlflow_id, DESCRIBED, "yes")

    def _flush(self, trial: Trial, run: _Open) -> None:
        """Send the points that MLflow does not hold; of two with one step, the later."""
        points = {int(point["step"]): point for point in self.points[trial.run_id]}
        new = {step: point for step, point in points.items() if step not in run.logged}
        now = int(time.time() * 1000)
        metrics = [
            Metric(f"train/{name}", point[name], now, step)
            for step, point in new.items()
            for name in LOGGED
            if name in point
        ]
        for start in range(0, len(metrics), BATCH):
            self.client.log_batch(run.mlflow_id, metrics=metrics[start : start + BATCH])
        run.logged |= new.keys()
        del self.points[trial.run_id]
        run.flushed = time.monotonic()

    def _end(self, trial: Trial, record: RunRecord | None) -> None:
        run = self._opened(trial)
        self.points[trial.run_id] = self._curve(trial) + self.points[trial.run_id]
        self._flush(trial, run)
        if record:
            self._log_record(run.mlflow_id, record)
        status = MLFLOW_STATUS[Status(record.status)] if record else "KILLED"
        self.client.set_terminated(run.mlflow_id, status, _ended(record) if record else None)
        if record and record.status != Status.FAILED:
            self.store.mark_delivered(record)
        del self.open[trial.run_id]

    def _curve(self, trial: Trial) -> list[Point]:
        """What the run's own folder holds of its curve."""
        path = self.store.run_folder(trial.run_id) / "curve.csv"
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        return [{str(name): value for name, value in row.items()} for row in rows]

    def _log_record(self, mlflow_id: str, record: RunRecord) -> None:
        """The same time whenever it is sent, so that MLflow knows a second sending for the same.

        A run that failed or was stopped has a cause and no figures: those of its end are enough.
        """
        at = _ended(record)
        row = {name: getattr(record, name) for name in COLUMNS if name not in ("grid", "arm")}
        figures = row if record.status in FINISHED else {}
        metrics = [Metric(k, float(v), at, 0) for k, v in figures.items() if _measured(v)]
        tags = [RunTag(k, str(v)) for k, v in row.items() if isinstance(v, str) and v]
        self.client.log_batch(mlflow_id, metrics=metrics, tags=tags)


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
