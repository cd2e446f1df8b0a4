"""MLflow on PostgreSQL, restarted while sixteen trials are logged: every point is there, once."""

from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import pytest

from core.record import Status
from sweeps.grid import Trial, load_grid
from sweeps.store import Store
from sweeps.tracking import Tracker
from tests.services.conftest import TrackingServer
from tests.sweeps.test_store import finish, record_of

POINTS = 60
OUTAGE = range(15, 45)  # points that trials report while nobody answers


def point(step: int) -> dict[str, float]:
    return {"step": step, "tokens": 8 * step, "loss": 6 / step, "lr": 0.1, "tokens_per_second": 50}


@pytest.mark.services
def test_a_restart_loses_no_metric(
    postgres: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.tracking.FLUSH_EVERY", 0.1)
    monkeypatch.setattr("sweeps.tracking.ASK_AGAIN", 0.1)
    server = TrackingServer(postgres, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.start()
    grid, store = load_grid(str(tiny), seeds=8), Store(tmp_path / "results")
    try:
        tracker = Tracker(grid, store)
        for trial in grid.trials:
            tracker.start(trial)
        for step in range(1, POINTS + 1):
            if step == OUTAGE.start:
                server.kill()
            if step == OUTAGE.stop:
                server.start()
            _step(tracker, store, grid.trials, step)
        tracker.close()
        _check(tracker, grid.trials)
        assert store.undelivered(grid) == []
    finally:
        server.kill()


def _step(tracker: Tracker, store: Store, trials: tuple[Trial, ...], step: int) -> None:
    """Each trial gives a point; the first four end in the outage, and one of them has failed."""
    for number, trial in enumerate(trials):
        last = OUTAGE.start + 5 if number < 4 else POINTS
        if step <= last:
            tracker.log(trial, [point(step)])
        if step == last:
            failed = {"status": Status.FAILED, "cause": "OSError: disk full"} if not number else {}
            record = record_of(trial, **failed)
            if not failed:
                finish(store, trial)
            tracker.finish(trial, record)


def _check(tracker: Tracker, trials: tuple[Trial, ...]) -> None:
    runs: list[Any] = tracker.client.search_runs([tracker.experiment])
    assert Counter(run.data.tags["run_id"] for run in runs) == Counter(t.run_id for t in trials)
    number = {trial.run_id: index for index, trial in enumerate(trials)}
    for run in runs:
        index = number[run.data.tags["run_id"]]
        points = OUTAGE.start + 5 if index < 4 else POINTS
        assert run.info.status == ("FINISHED" if index else "FAILED")
        for name in ("train/loss", "train/tokens_per_second"):
            history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
            assert Counter(m.step for m in history) == Counter(range(1, points + 1)), name
