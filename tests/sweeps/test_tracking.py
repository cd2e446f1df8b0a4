"""One run id is one MLflow run with one point a step, whatever was killed between."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from core.record import Status
from sweeps.grid import Grid, load_grid
from sweeps.store import Store, tracking_uri
from sweeps.tracking import Tracker
from tests.sweeps.test_store import finish, record_of


@pytest.fixture
def grid(tiny: Path) -> Grid:
    return load_grid(str(tiny))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path / "results")
    store.results.mkdir()
    return store


def point(step: int) -> dict[str, float]:
    return {"step": step, "tokens": 8 * step, "loss": 6 - step, "lr": 0.1, "tokens_per_second": 50}


def runs(store: Store) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri(store.results))
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def steps(store: Store, run: Any, name: str = "train/loss") -> Counter[int]:
    client = mlflow.MlflowClient(tracking_uri(store.results))
    return Counter(metric.step for metric in client.get_metric_history(run.info.run_id, name))


def test_a_killed_and_resumed_run_stays_one_run(grid: Grid, store: Store) -> None:
    trial = grid.trials[3]
    first = Tracker(grid, store)
    first.start(trial)
    first.log(trial, [point(1), point(2)])
    first.close()
    assert runs(store)[0].info.status == "KILLED"

    second = Tracker(grid, store)
    second.start(trial)
    assert runs(store)[0].info.status == "RUNNING"
    second.log(trial, [point(2), point(3)])
    finish(store, trial)  # its curve has steps 1 and 2
    second.finish(trial, record_of(trial))

    [run] = runs(store)
    assert steps(store, run) == {1: 1, 2: 1, 3: 1}
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "ffn d16 memory.lr 0.01 seed 1"
    assert run.data.tags["run_id"] == trial.run_id
    assert (run.data.tags["arm"], run.data.tags["memory_type"]) == ("ffn", "ffn")
    assert run.data.params["train.lr"] == "0.01"
    assert run.data.metrics["loss_test_prefix"] == 3.25
    assert "loss_test_off" not in run.data.metrics  # not measured is not logged
    assert store.undelivered(grid) == []


def test_config_and_dataset_are_kept_with_the_run(grid: Grid, store: Store) -> None:
    Tracker(grid, store).start(grid.trials[0])
    client = mlflow.MlflowClient(tracking_uri(store.results))
    run = client.get_run(runs(store)[0].info.run_id)
    [artifact] = store.results.joinpath("artifacts").rglob("config.yaml")
    config = yaml.safe_load(artifact.read_text())
    assert config == grid.trials[0].config.model_dump(mode="json")
    assert run.inputs.dataset_inputs[0].dataset.name == str(grid.path.with_name("text.jsonl"))


def test_what_a_killed_driver_kept_back_is_delivered(grid: Grid, store: Store) -> None:
    finish(store, grid.trials[0])
    assert store.undelivered(grid) == [grid.trials[0]]
    Tracker(grid, store).deliver(store.undelivered(grid))
    [run] = runs(store)
    assert steps(store, run) == {1: 1, 2: 1}
    assert store.undelivered(grid) == []


@pytest.mark.parametrize(
    ("status", "shown"), [(Status.FAILED, "FAILED"), (Status.STOPPED, "FINISHED")]
)
def test_a_run_without_an_end_has_a_cause_until_it_is_trained_in_full(
    grid: Grid, store: Store, status: Status, shown: str
) -> None:
    trial, tracker = grid.trials[0], Tracker(grid, store)
    store.run_folder(trial.run_id).mkdir(parents=True)
    tracker.start(trial)
    tracker.finish(trial, record_of(trial, status=status, cause="disk full"))
    [run] = runs(store)
    assert (run.info.status, run.data.tags["cause"]) == (shown, "disk full")
    assert run.data.tags["status"] == status
    tracker.start(trial)
    finish(store, trial)
    tracker.finish(trial, record_of(trial, finished="2026-01-03T00:00:00+00:00"))
    [run] = runs(store)
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "done")
    assert "cause" not in run.data.tags
    history = tracker.client.get_metric_history(run.info.run_id, "n_anchor")
    assert len(history) == 1  # of the attempt that ended well


def test_a_tracker_out_of_reach_stops_nothing_and_is_told_when_it_answers(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker, trial, failed = Tracker(grid, store), grid.trials[0], grid.trials[1]

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("nobody answers")

    with monkeypatch.context() as outage:
        outage.setattr(tracker.client, "create_run", refuse)
        tracker.start(trial)
        tracker.log(trial, [point(1), point(3)])
        finish(store, trial)
        tracker.finish(trial, record_of(trial))
        tracker.finish(failed, record_of(failed, status=Status.FAILED, cause="disk full"))
        assert store.undelivered(grid) == [trial]
    assert capsys.readouterr().out.count("nobody answers") == 1

    tracker.close()
    told = {run.data.tags["run_id"]: run for run in runs(store)}
    assert steps(store, told[trial.run_id]) == {1: 1, 2: 1, 3: 1}
    assert steps(store, told[trial.run_id], "train/tokens_per_second") == {1: 1, 3: 1}
    assert told[failed.run_id].info.status == "FAILED"
    assert store.undelivered(grid) == []


@pytest.mark.parametrize("call", ["log_batch", "log_inputs", "set_tag", "set_terminated"])
def test_a_call_that_arrived_without_an_answer_is_not_logged_twice(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    tracker, trial = Tracker(grid, store), grid.trials[0]
    monkeypatch.setattr("sweeps.tracking.FLUSH_EVERY", 0.0)
    monkeypatch.setattr("sweeps.tracking.ASK_AGAIN", 0.0)
    honest, answers = getattr(tracker.client, call), itertools.cycle([False, True])

    def forget_to_answer(*args: Any, **kwargs: Any) -> None:
        honest(*args, **kwargs)
        if not next(answers):
            raise ConnectionError("no answer")

    monkeypatch.setattr(tracker.client, call, forget_to_answer)
    tracker.start(trial)
    for step in (1, 2, 3):
        tracker.log(trial, [point(step)])
    finish(store, trial)
    tracker.finish(trial, record_of(trial))
    for _ in range(5):
        tracker.close()
    [run] = runs(store)
    assert steps(store, run) == {1: 1, 2: 1, 3: 1}
    assert steps(store, run, "loss_test_prefix") == {0: 1}
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.01"
    assert len(run.inputs.dataset_inputs) == 1


def test_an_address_in_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri(tmp_path) == "http://server:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_uri(Path("results")) == f"sqlite:///{Path.cwd()}/results/mlflow.db"


def test_a_database_is_made_whole_or_not_at_all(
    grid: Grid, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Any, *given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", killed)
    with pytest.raises(KeyboardInterrupt):
        Tracker(grid, store).start(grid.trials[0])
    assert not (store.results / "mlflow.db").exists()


def test_what_a_killed_sweep_left_of_a_database_is_no_hindrance(grid: Grid, store: Store) -> None:
    (store.results / ".mlflow.db.partial").write_text("half")
    (store.results / ".mlflow.db.partial-journal").write_text("of a table")
    (store.results / "mlflow.db").touch()  # by another program that opened it too early
    Tracker(grid, store).start(grid.trials[0])
    assert [run.info.status for run in runs(store)] == ["RUNNING"]
    assert not list(store.results.glob(".mlflow.db*"))
