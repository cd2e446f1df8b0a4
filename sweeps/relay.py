"""What Tune says of the trials of a sweep, told to those who watch and to the store."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from core.record import RunRecord
from sweeps.grid import Trial
from sweeps.interruption import Interruption
from sweeps.progress import Watcher
from sweeps.scheduling import tune_run_id
from sweeps.store import Store

# A worker that dies (killed, out of memory) is started again so often; errors are not retried.
RETRIES = 2
NODES_EVERY = 5.0  # seconds between looks at Ray's nodes


class Relay(tune.Callback):  # type: ignore[misc]
    """Tells the watchers what Tune tells us."""

    def __init__(
        self,
        pending: Sequence[Trial],
        store: Store,
        watchers: Sequence[Watcher],
        interruption: Interruption,
        stopped: Mapping[str, RunRecord],
    ) -> None:
        self.trials = {trial.run_id: trial for trial in pending}
        self.store, self.watchers, self.interruption = store, watchers, interruption
        self.stopped = stopped  # records of the runs that the scheduler stops, by run id
        self.failures: dict[str, str] = {}
        self.nodes_seen = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps its callbacks for `Tuner.restore`, which is not used."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Between two steps a sweep can be interrupted."""
        self.interruption.check()
        self._check_nodes()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has the trial."""
        for watcher in self.watchers:
            watcher.start(self._ours(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """New points of a curve, or why the run failed."""
        if cause := result.get("failure"):
            self.failures[tune_run_id(trial)] = cause
        if points := result.get("points"):
            for watcher in self.watchers:
                watcher.log(self._ours(trial), list(points))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The function returned, or was stopped: there is a record, or the cause of a failure."""
        cause = self.failures.pop(tune_run_id(trial), "the run left no record")
        self._finish(self._ours(trial), cause)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker died and another takes over."""
        print(f"worker lost: {self._ours(trial).name} goes on from its checkpoint", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker died once too often."""
        cause = f"the worker died {RETRIES + 1} times: {_last_line(trial)}"
        self._finish(self._ours(trial), cause)

    def _check_nodes(self) -> None:
        """Raises ConnectionError where every node has died: Ray itself would wait for ever."""
        if time.monotonic() < self.nodes_seen + NODES_EVERY:
            return
        if not any(node["Alive"] for node in ray.nodes()):
            raise ConnectionError("Ray has lost every node")
        self.nodes_seen = time.monotonic()

    def _finish(self, ours: Trial, cause: str) -> None:
        try:
            self.store.fetch(ours.run_id)
        except OSError as error:
            cause = f"its record is in the storage and cannot be fetched: {error}"
        record = self.store.record(ours.run_id) or self.stopped.get(ours.run_id)
        record = record or self.store.write_failure(ours, cause)
        for watcher in self.watchers:
            watcher.finish(ours, record)

    def _ours(self, trial: Any) -> Trial:
        return self.trials[tune_run_id(trial)]


def _last_line(trial: Any) -> str:
    path = Path(trial.error_file or "")
    lines = path.read_text().strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else "no message"
