"""The grids for a GPU, where there is none: planned, and every arm trained for a step."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import core.train
from core.accounting import count_parameters
from core.calibrate import random_text
from core.config import RunConfig, Runtime, parse_config
from core.identity import run_id
from core.record import Status
from core.train import train_run
from sweeps.__main__ import main
from sweeps.grid import GRIDS, Grid, Trial, load_grid

GPU = "gpu-"
NAMES = sorted(path.stem for path in GRIDS.glob(f"{GPU}*.yaml"))
# Those that ask what a grid for CPUs asks, at all its sizes.
SCALED = [name for name in NAMES if not name.endswith(("-rates", "-beyond"))]
EPOCH = 12_286_342  # train tokens of the default text under split_seed 1
BATCH, SEQ_LEN = 4, 16
TINY: dict[str, Any] = {
    "data": {"vocab_size": 300, "seq_len": SEQ_LEN, "min_tokens": 4},
    "train": {"tokens": BATCH * SEQ_LEN, "batch_size": BATCH, "precision": "fp32"},
    "evaluate": {"validation_windows": 2, "test_windows": 2},
}


def sizes(grid: Grid) -> list[int]:
    """N of the grid's dense runs, ascending."""
    return sorted(count_parameters(t.config).anchor for t in grid.trials if t.arm == "dense")


def shrunk(config: RunConfig) -> RunConfig:
    """One step of a tiny anchor with the memory's own sizes, on short windows."""
    values = config.model_dump(mode="json", exclude_defaults=True)
    values |= {name: values.get(name, {}) | tiny for name, tiny in TINY.items()}
    values["anchor"] = {"size": "d16", "layers": 4}
    if config.train.start:
        values["train"]["start"]["tokens"] = TINY["train"]["tokens"]
    return parse_config(values, "shrunk")


def first_of_each_arm(grid: Grid) -> list[Trial]:
    return list({trial.arm: trial for trial in reversed(grid.trials)}.values())


@pytest.mark.parametrize("name", NAMES)
def test_is_planned_without_a_gpu_and_without_its_text(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = SimpleNamespace(free=64 * 2**30)  # of a machine that is lent for minutes
    monkeypatch.setattr("core.device.shutil.disk_usage", lambda path: free)
    assert main(["dry-run", name, "--json", "--results", str(tmp_path)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert all(run["state"] == "to do" and run["train_flops"] > 0 for run in plan["runs"])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_trains_a_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trial in first_of_each_arm(load_grid(name)):
        config = shrunk(trial.config)
        text = random_text(config, 2 * BATCH)
        monkeypatch.setattr(core.train, "prepare", lambda *_, text=text: text)
        record = train_run(config, Runtime(), tmp_path / run_id(config), lambda _: None)
        assert (record.status, config.steps) == (Status.DONE, 1), trial.name
        assert math.isfinite(record.loss_test_prefix), trial.name


@pytest.mark.parametrize("name", SCALED)
def test_asks_the_same_at_ten_to_fifty_times_the_parameters(name: str) -> None:
    large, small = load_grid(name), load_grid(name.removeprefix(GPU))
    assert [t.arm for t in large.trials] == [t.arm for t in small.trials]
    ratios = [a / b for a, b in zip(sizes(large), sizes(small), strict=True)]
    assert all(10 <= ratio <= 50 for ratio in ratios)
    assert max(t.config.train.tokens for t in large.trials) <= 4 * EPOCH


def test_the_prediction_is_for_four_times_the_largest_anchor() -> None:
    (beyond,) = set(sizes(load_grid("gpu-law-beyond")))
    assert beyond == pytest.approx(4 * max(sizes(load_grid("gpu-law"))), rel=0.001)
