"""Anchors that are trained first, and subtrees that are trained apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import core.train
from core.accounting import count_flops, start_flops, training_flops_per_token
from core.batches import batch_rows
from core.checkpoint import load_weights
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.errors import InputError
from core.identity import run_id
from core.memory.merge import merge_banks
from core.train import train_run
from core.trainer import Trainer

START = {"tokens": 640, "lr": 2e-2}
FFN = {"type": "ffn", "widths": [3, 2]}
Make = Callable[..., RunConfig]


@pytest.fixture
def train(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[RunConfig], Path]:
    """Trains a run among others, and gives its folder."""
    monkeypatch.setattr(core.train, "prepare", lambda *_: dataset)

    def train(config: RunConfig) -> Path:
        folder = tmp_path / "runs" / run_id(config)
        folder.mkdir(parents=True, exist_ok=True)
        train_run(config, Runtime(), folder, lambda _: None)
        return folder

    return train


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "model.safetensors")


def test_start_is_the_run_without_memory(make_config: Make) -> None:
    run = make_config(memory=FFN, train={"mode": "warm", "start": START, "tokens": 1280})
    assert run.start == make_config(train=START)
    assert make_config().start is None
    others: list[dict[str, Any]] = [
        {"mode": "frozen", "start": START},
        {"mode": "warm", "start": {**START, "lr": 1e-2}},
        {"mode": "warm", "start": {**START, "tokens": 704}},
        {"mode": "frozen", "start": START, "tree_part": [0]},
    ]
    ids = {run_id(make_config(memory=FFN, train={**other, "tokens": 1280})) for other in others}
    assert len(ids | {run_id(run)}) == 5


@pytest.mark.parametrize("mode", ["warm", "frozen"])
def test_the_anchor_is_trained_first_and_once(
    make_config: Make, train: Callable[[RunConfig], Path], mode: str
) -> None:
    config = make_config(memory=FFN, train={"mode": mode, "start": START})
    assert config.start is not None
    folder = train(config)
    first = folder.parent / run_id(config.start)
    record = first / "record.json"
    assert json.loads(record.read_text())["memory_type"] == "none"
    written = record.stat().st_mtime_ns
    again = train(make_config(memory={**FFN, "lr": 1e-3}, train={"mode": mode, "start": START}))
    assert again != folder
    assert record.stat().st_mtime_ns == written
    before, after = weights(first), weights(folder)
    moved = [not torch.equal(tensor, after[name]) for name, tensor in before.items()]
    assert all(moved) if mode == "warm" else not any(moved)
    assert after["bank.0.rows"].view(2, 2, 3, 3, 16)[:, :, 2].abs().sum() > 0
    saved = json.loads((folder / "record.json").read_text())
    assert saved["training"] == mode
    assert saved["start_flops"] == training_flops_per_token(config.start) * 640


def test_dense_may_go_on_too(make_config: Make, train: Callable[[RunConfig], Path]) -> None:
    """The control at equal total tokens."""
    train(make_config(train={"mode": "warm", "start": START}))


def test_text_goes_on_where_the_first_stage_stopped(
    make_config: Make, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(memory=FFN, train={"mode": "warm", "start": START})
    trainer = Trainer(config, Runtime(), tmp_path, dataset, lambda _: None)
    chosen = batch_rows(len(dataset.train.tokens_nt), 4, 10, config.seed)
    expected = torch.from_numpy(dataset.train.tokens_nt[chosen].astype("int64"))
    assert torch.equal(trainer.batch.rows_bt, expected)


def test_a_diverged_start_is_named(make_config: Make, train: Callable[[RunConfig], Path]) -> None:
    limits = {"mode": "warm", "start": START, "diverged_above": 0.9}
    with pytest.raises(InputError, match=r"train\.start diverged .* lower train\.start\.lr"):
        train(make_config(memory=FFN, train=limits))


@pytest.mark.parametrize(
    "memory", [FFN, {"type": "ngram", "rows": 90, "heads": 2, "row_dim": 4, "weight_decay": 0.1}]
)
def test_a_frozen_run_resumes_to_the_bit_and_leaves_its_anchor(
    make_config: Make, dataset: Dataset, tmp_path: Path, memory: dict[str, Any]
) -> None:
    config = make_config(memory=memory, train={"mode": "frozen", "start": START, "tokens": 1280})
    assert config.start is not None
    Trainer(config.start, Runtime(), tmp_path / "a", dataset, lambda _: None).run()
    start = tmp_path / "a" / "model.safetensors"

    def run(name: str, kill_at: int | None) -> dict[str, torch.Tensor]:
        def on_log(point: dict[str, float]) -> None:
            if point["step"] == kill_at:
                raise KeyboardInterrupt

        runtime = Runtime(checkpoint_seconds=0.0)
        Trainer(config, runtime, tmp_path / name, dataset, on_log, start).run()
        return weights(tmp_path / name)

    whole = run("whole", None)
    with pytest.raises(KeyboardInterrupt):
        run("killed", 8)
    resumed = run("killed", None)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    anchor = load_weights(start)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in anchor.items())


def test_a_frozen_anchor_saves_its_weights_gradients(make_config: Make) -> None:
    frozen = make_config(memory=FFN, train={"mode": "frozen", "start": START})
    joint = make_config(memory=FFN)
    flops = count_flops(joint)
    saved = training_flops_per_token(joint) - training_flops_per_token(frozen)
    assert saved == flops.anchor + flops.head
    assert start_flops(joint) == 0


@pytest.mark.parametrize("name", ["ffn", "kv", "lora-ffn"])
def test_merged_subtrees_equal_one_run(
    make_config: Make, train: Callable[[RunConfig], Path], tmp_path: Path, name: str
) -> None:
    memory = {"type": name, "widths": [3, 2], "weight_decay": 0.1}
    stages = {"mode": "frozen", "start": START, "accumulate": 2}
    one = train(make_config(memory=memory, train=stages))
    parts = [train(make_config(memory=memory, train={**stages, "tree_part": [c]})) for c in (0, 1)]
    target = tmp_path / "merged.safetensors"
    merge_banks([part / "model.safetensors" for part in parts], target)
    whole, merged = weights(one), load_weights(target)
    assert whole.keys() == merged.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(merged[key], tensor, rtol=1e-4, atol=1e-5)
        if key.startswith("bank"):
            assert any((weights(part)[key] - tensor).abs().max() > 1e-2 for part in parts)


def test_merging_refuses_what_is_no_whole(
    make_config: Make, train: Callable[[RunConfig], Path], tmp_path: Path
) -> None:
    stages = {"mode": "frozen", "start": START, "tokens": 320}
    one, two, other = (
        train(make_config(memory=FFN, train={**stages, "tree_part": [c], "lr": lr}))
        / "model.safetensors"
        for c, lr in ((0, 1e-2), (1, 1e-2), (1, 2e-2))
    )
    target = tmp_path / "merged.safetensors"
    for parts, message in (
        ([one], r"hold clusters \[0\] of level 1, each of 0 to 1 is needed once"),
        ([one, two, two], r"hold clusters \[0, 1, 1\]"),
        ([one, other], "differs from .* in more than train.tree_part"),
        ([one, tmp_path / "absent"], "absent: cannot be loaded"),
    ):
        with pytest.raises(InputError, match=message):
            merge_banks(parts, target)
    assert not target.exists()
