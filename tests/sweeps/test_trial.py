"""What happens inside a worker, without Ray."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ray import tune

from core.config import Paths, Runtime
from core.errors import InputError
from core.paths import taken_paths
from sweeps import trial as trials
from sweeps.grid import Trial, load_grid
from sweeps.interruption import interruptible
from sweeps.relay import Relay
from sweeps.storage import SharedStorage
from sweeps.store import Store
from sweeps.trial import Reports, run_trial, trial_settings


@pytest.fixture
def trial(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    monkeypatch.chdir(tmp_path)
    return load_grid(str(tiny)).trials[0]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a worker reports to the driver."""
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    return reports


def test_an_error_is_reported_as_a_failure_and_does_not_reach_ray(
    trial: Trial, reported: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_run(*given: object) -> None:
        raise InputError("no text; give more")

    monkeypatch.setattr("core.train.train_run", train_run)
    run_trial({"trial": json.dumps(trial_settings(trial, Runtime()))})
    assert reported == [{"failure": "InputError: no text; give more"}]


def test_a_run_in_other_hands_is_not_trained_twice(
    trial: Trial, reported: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "ORPHAN_WAIT", 0.0)
    monkeypatch.setattr("core.train.prepare", lambda *given: None)
    folder = Store(Path("results")).run_folder(trial.run_id)
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        run_trial({"trial": json.dumps(trial_settings(trial, Runtime()))})
    assert "another process trains in" in reported[0]["failure"]


def test_a_worker_elsewhere_reads_relative_paths_as_the_driver_does(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("core.train.train_run", lambda *given: seen.append(Path.cwd()))
    settings = {"trial": json.dumps(trial_settings(trial, Runtime()))}
    os.chdir("/")
    run_trial(settings)
    assert seen == [tmp_path]


def test_what_a_sweep_is_told_reaches_its_workers(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("core.train.train_run", lambda *given: seen.extend(given))
    given = {"results": Path("results"), "bank": "disk", "checkpoint_seconds": 7.0}
    storage = SharedStorage("kept", tmp_path / "results")
    run_trial({"trial": json.dumps(trial_settings(trial, Runtime.model_validate(given), storage))})
    assert seen[1] == Runtime.model_validate(given | {"results": tmp_path / "results"})
    assert seen[-1].uri == str(tmp_path / "kept")


def test_the_first_trial_finds_the_paths_that_all_take(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, measured = Paths(precision="fp32", attention="fused"), []
    monkeypatch.setattr(trials, "measure", lambda config, device: measured.append(config) or found)
    seen: list[Any] = []
    monkeypatch.setattr("core.train.train_run", lambda *given: seen.append(given[1].paths))
    unmeasured = trial.config.model_copy(update={"seed": 7})
    given = {"grid": "tiny", "unmeasured": unmeasured.model_dump(mode="json")}
    for _ in range(2):
        run_trial({"trial": json.dumps(trial_settings(trial, Runtime()) | given)})
    assert seen == [found, found]
    assert measured == [unmeasured]
    assert taken_paths(Path("results/tiny")) == found


def test_points_are_gathered_and_none_is_lost(
    reported: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.4, 0.8, 1.2, 1.2, 1.5, 1.6])
    monkeypatch.setattr("sweeps.trial.time.monotonic", lambda: next(now))
    reports = Reports(tune.report)
    for step in range(4):
        reports.add({"step": step})
    reports.flush()
    gathered = [report["points"] for report in reported]
    assert gathered == [[{"step": 0}, {"step": 1}, {"step": 2}], [{"step": 3}]]


@pytest.mark.parametrize(("alive", "ends"), [([True, False], False), ([False, False], True)])
def test_a_sweep_without_a_living_node_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alive: list[bool], ends: bool
) -> None:
    """Ray would wait for ever for a node that may come."""
    monkeypatch.setattr("sweeps.relay.NODES_EVERY", 0.0)
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": state} for state in alive])
    with interruptible() as interruption:
        relay = Relay([], Store(tmp_path), [], interruption, {})
        if ends:
            with pytest.raises(ConnectionError, match="Ray has lost every node"):
                relay.on_step_begin(1, [])
        else:
            relay.on_step_begin(1, [])
