"""Runs on machines that share no folder: what one leaves in the storage another goes on with."""

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.checkpoint import load_weights
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.identity import run_id
from core.record import INCIDENTAL, RunRecord, Status, read_record
from core.storage import NOWHERE_ELSE, Storage
from core.train import train_run
from sweeps.__main__ import main
from sweeps.grid import Grid, load_grid
from sweeps.interruption import interruptible
from sweeps.relay import Relay
from sweeps.storage import SharedStorage, pull_data
from sweeps.store import Store
from tests.core.conftest import dataset, make_config
from tests.sweeps.test_store import finish

__all__ = ["dataset", "make_config"]

TICKS = 5  # a step looks at the clock twice
Train = Callable[..., RunRecord]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"file://{tmp_path}/storage"


@pytest.fixture
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    """20 steps with a bank."""
    return make_config(memory={"type": "ffn", "widths": [3, 2]})


@pytest.fixture
def grid(tiny: Path) -> Grid:
    return load_grid(str(tiny))


@pytest.fixture
def train(
    config: RunConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Train:
    """Trains the run on the machine whose results folder is given, a checkpoint every third step.

    So the last checkpoint is not the end.
    """
    monkeypatch.setattr("core.train.prepare", lambda *given: dataset)
    ticks = SimpleNamespace(monotonic=count().__next__, process_time=time.process_time)
    monkeypatch.setattr("core.trainer.time", ticks)

    def run(machine: str, storage: Storage, bank: str, kill_at: float = 1e9) -> RunRecord:
        def on_log(point: dict[str, float]) -> None:
            if point["step"] >= kill_at:
                raise KeyboardInterrupt

        values = {"results": tmp_path / machine, "checkpoint_seconds": TICKS, "bank": bank}
        runtime = Runtime.model_validate(values)
        folder = tmp_path / machine / "runs" / run_id(config)
        return train_run(config, runtime, folder, on_log, storage=storage)

    return run


def left(folder: Path) -> dict[str, Any]:
    """What a finished run left: its record, curve and weights, and the rows of a bank on disk."""
    record = read_record(folder / "record.json").__dict__.items()
    weights = load_weights(folder / "model.safetensors")
    rows = {path.parent.name: path.read_bytes() for path in folder.glob("bank/*/rows")}
    return rows | {
        "record": {k: v for k, v in record if k not in INCIDENTAL and v == v},
        "curve": (folder / "curve.csv").read_bytes(),
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
    }


@pytest.mark.parametrize("bank", ["device", "disk"])
def test_a_killed_run_goes_on_elsewhere_to_the_bit(
    train: Train, config: RunConfig, tmp_path: Path, uri: str, bank: str
) -> None:
    train("whole", NOWHERE_ELSE, bank)
    with pytest.raises(KeyboardInterrupt):
        train("one", SharedStorage(uri, tmp_path / "one"), bank, kill_at=9)
    record = train("two", SharedStorage(uri, tmp_path / "two"), bank)
    assert record.attempts == 2
    name = Path("runs") / run_id(config)
    assert left(tmp_path / "two" / name) == left(tmp_path / "whole" / name)
    assert left(tmp_path / "storage" / name) == left(tmp_path / "whole" / name)


@pytest.mark.parametrize("bank", ["device", "disk"])
def test_wherever_an_upload_ends_the_run_goes_on_to_the_same_end(
    train: Train,
    config: RunConfig,
    tmp_path: Path,
    uri: str,
    bank: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the same machine or on another."""
    sent = Counter[str]()
    put = SharedStorage._put

    def fail_in_the_end(self: SharedStorage, source: Path, path: Path) -> None:
        sent[self.uri] += 1
        if sent[self.uri] == failing:
            raise OSError("the storage is gone")
        put(self, source, path)

    monkeypatch.setattr(SharedStorage, "_put", fail_in_the_end)
    failing = -1
    train("whole", SharedStorage(f"{uri}/whole", tmp_path / "whole"), bank)
    name, total = Path("runs") / run_id(config), sent[f"{uri}/whole"]
    for failing in (*range(1, total - 9, 11), *range(total - 9, total + 1, 3)):
        place, machines = f"{uri}/{failing}", (f"{failing}a", f"{failing}{'ab'[failing % 2]}")
        with pytest.raises(OSError, match="the storage is gone"):
            train(machines[0], SharedStorage(place, tmp_path / machines[0]), bank)
        assert SharedStorage(place, tmp_path).finished() == set()
        assert not (tmp_path / machines[0] / name / "record.json").exists()
        train(machines[1], SharedStorage(place, tmp_path / machines[1]), bank)
        assert left(tmp_path / "storage" / str(failing) / name) == left(tmp_path / "whole" / name)


def test_a_machine_that_is_further_keeps_its_own(
    train: Train, config: RunConfig, tmp_path: Path, uri: str
) -> None:
    """Its uploads failed for a while; and one that is behind takes nothing back."""
    ahead, behind = (SharedStorage(uri, tmp_path / name) for name in ("ahead", "behind"))
    with pytest.raises(KeyboardInterrupt):
        train("ahead", ahead, "device", kill_at=5)
    with pytest.raises(KeyboardInterrupt):
        train("ahead", NOWHERE_ELSE, "device", kill_at=15)
    with pytest.raises(KeyboardInterrupt):
        train("behind", NOWHERE_ELSE, "device", kill_at=4)
    folder = tmp_path / "ahead" / "runs" / run_id(config)
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    ahead.pull(folder)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == checkpoints
    ahead.push(folder)
    behind.push(tmp_path / "behind" / "runs" / run_id(config))
    stored = tmp_path / "storage" / "runs" / run_id(config) / "checkpoints"
    assert sorted(path.name for path in stored.iterdir() if any(path.iterdir())) == checkpoints


def test_a_run_keeps_to_the_place_of_its_bank(train: Train) -> None:
    for first, then in (("device", "disk"), ("disk", "host")):
        with pytest.raises(KeyboardInterrupt):
            train(first, NOWHERE_ELSE, first, kill_at=4)
        with pytest.raises(ValueError, match=r"checkpoint is of a bank (in memory|on disk), this"):
            train(first, NOWHERE_ELSE, then)


def test_a_dataset_is_prepared_once(grid: Grid, tmp_path: Path, uri: str) -> None:
    data, tree = grid.trials[0].config.data, grid.trials[0].config.tree
    one, two = (Runtime(results=tmp_path / name) for name in ("one", "two"))
    folder = pull_data(data, tree, one, SharedStorage(uri, one.results))
    assert not folder.exists()
    (folder / "embedder").mkdir(parents=True)
    (folder / "embedder" / "words.json").write_text("{}")
    SharedStorage(uri, one.results).push(folder)
    assert not pull_data(data, tree, two, SharedStorage(uri, two.results)).exists()
    (folder / "meta.json").write_text("{}")  # now it is whole
    SharedStorage(uri, one.results).push(folder)
    brought = pull_data(data, tree, two, SharedStorage(uri, two.results))
    names = sorted(path.relative_to(brought).as_posix() for path in brought.rglob("*.json"))
    assert names == ["embedder/words.json", "meta.json"]


def test_a_fresh_machine_finds_what_is_finished(
    grid: Grid, tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Store(tmp_path / "worker", SharedStorage(uri, tmp_path / "worker"))
    for trial, status in zip(grid.trials[:2], (Status.DONE, Status.DIVERGED), strict=True):
        finish(worker, trial, status=status)
        folder = worker.run_folder(trial.run_id)
        record = read_record(folder / "record.json")
        (folder / "record.json").unlink()
        (folder / "config.yaml").write_text("seed: 0")
        assert worker.storage
        worker.storage.finish(folder, record)
    results = tmp_path / "driver"
    given = [str(grid.path), "--results", str(results), "--storage", uri]
    assert main(["status", *given, "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert {state: n for state, n in counts.items() if n} == {"done": 1, "diverged": 1, "to do": 2}
    assert Store(results).pending(grid) == list(grid.trials[2:])
    assert (results / "runs" / grid.trials[0].run_id / "curve.csv").exists()


def test_a_record_that_cannot_be_fetched_is_a_failure_with_its_cause(
    grid: Grid, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*given: object) -> None:
        raise OSError("endpoint down")

    monkeypatch.setattr(SharedStorage, "fetch", fetch)
    store, trial = Store(tmp_path, SharedStorage(uri, tmp_path)), grid.trials[0]
    with interruptible() as interruption:
        Relay(grid.trials, store, [], interruption, {})._finish(trial, "")
    failure = store.failure(trial.run_id)
    assert failure and "endpoint down" in failure.cause


@pytest.mark.parametrize("given", ["nowhere://x", "s3:bucket", "text.jsonl/folder"])
def test_no_storage(
    tiny: Path,
    tmp_path: Path,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(tiny), "--results", "results", "--storage", given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: storage {given}: ")
    assert error.count("\n") == 1
    assert not Path("results").exists()


def test_processes_of_a_trial_need_a_folder_in_common(
    tiny: Path, tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "new"
    options = ["--results", str(results), "--storage", uri, "--processes", "2"]
    assert main(["run", str(tiny), *options]) == 2
    error = capsys.readouterr().err
    assert "the processes of a trial share its folder" in error
    assert error.count("\n") == 1
    assert not results.exists()
