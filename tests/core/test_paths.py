"""A run keeps to the paths that it began on, whoever goes on with it or asks it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.config import Paths, RunConfig, Runtime
from core.dataset import Dataset
from core.errors import InputError
from core.load import load_run
from core.paths import PATHS, kept_paths, taken_paths
from core.record import RECORD, RunRecord, read_record, write_record
from core.train import train_run

FOUND = Paths(precision="fp32", attention="fused")
OTHERS = Paths(precision="bf16", attention="plain")


class Killed(Exception):
    """Stands for SIGKILL in the middle of a run."""


@pytest.fixture
def config(make_config: Callable[..., RunConfig]) -> RunConfig:
    return make_config(train={"precision": "auto"})


@pytest.fixture
def train(
    config: RunConfig, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunRecord]:
    monkeypatch.setattr("core.train.prepare", lambda *given: dataset)

    def train(folder: Path, paths: Paths, kill_at: float = 1e9) -> RunRecord:
        def on_log(point: dict[str, float]) -> None:
            if point["step"] >= kill_at:
                raise Killed

        runtime = Runtime(paths=paths, checkpoint_seconds=0.0)
        return train_run(config, runtime, folder, on_log)

    return train


def test_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    assert kept_paths(folder, lambda: FOUND) == FOUND
    assert kept_paths(folder, lambda: pytest.fail("asked again")) == FOUND
    assert taken_paths(folder) == FOUND


@pytest.mark.parametrize("text", ["attention: flash", "precision: fp16", "speed: high", "[]"])
def test_what_is_no_path_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / PATHS).write_text(text)
    for read in (taken_paths, lambda folder: kept_paths(folder, Paths)):
        with pytest.raises(InputError, match=str(tmp_path / PATHS)):
            read(tmp_path)


def test_a_run_goes_on_as_it_began(tmp_path: Path, train: Callable[..., RunRecord]) -> None:
    whole = train(tmp_path / "whole", FOUND)
    with pytest.raises(Killed):
        train(tmp_path / "killed", FOUND, kill_at=8)
    resumed = train(tmp_path / "killed", OTHERS)
    assert resumed.attempts == 2
    assert resumed.precision == whole.precision == "fp32"
    assert resumed.loss_test_prefix == whole.loss_test_prefix
    assert train(tmp_path / "others", OTHERS).loss_test_prefix != whole.loss_test_prefix


def test_a_run_is_loaded_as_it_was_trained(tmp_path: Path, train: Callable[..., RunRecord]) -> None:
    for paths, dtype in ((FOUND, torch.float32), (OTHERS, torch.bfloat16)):
        folder = tmp_path / paths.attention
        train(folder, paths)
        model = load_run(folder)
        assert (model.dtype, model.anchor.fused) == (dtype, paths.attention == "fused")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_an_older_run_kept_its_precision_in_its_record(
    tmp_path: Path, train: Callable[..., RunRecord], precision: str
) -> None:
    train(tmp_path, FOUND)
    (tmp_path / PATHS).unlink()
    record = replace(read_record(tmp_path / RECORD), precision=precision)
    write_record(record, tmp_path / RECORD)
    model = load_run(tmp_path)
    assert model.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert not model.anchor.fused
