"""A run learns, resumes to the bit, and stops when it diverges."""

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from filelock import FileLock

from core.batches import Batches, batch_rows
from core.checkpoint import load_weights
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.errors import InputError
from core.load import load_run
from core.memory.disk import DiskTable
from core.model import predicted
from core.record import INCIDENTAL, RunRecord, Status
from core.train import train_run
from core.trainer import Trainer
from tests.core.conftest import SEQ_LEN

ARMS = {
    "none": {},
    "generic": {"type": "generic", "widths": [3, 2], "weight_decay": 0.01},
    "ffn": {"type": "ffn", "widths": [3, 2], "lr": 5e-3},
    "rounded": {"type": "ffn", "widths": [3, 2], "weights": "bf16", "moments": "bf16"},
    "mix": {"type": "ffn", "widths": [4, 2], "generic_mix": 0.3, "placement": "late-1"},
    "kv": {"type": "kv", "widths": [3, 2]},
    "lora-qk": {"type": "lora-qk", "widths": [2, 1]},
    "lora-vo": {"type": "lora-vo", "widths": [2, 1]},
    "lora-ffn": {"type": "lora-ffn", "widths": [2, 1]},
    "pkm": {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3},
    "ngram": {"type": "ngram", "rows": 90, "heads": 2, "row_dim": 4, "placement": [1]},
    "moe": {"type": "moe", "experts": 3, "top_k": 2, "placement": "late-1"},
}


class Killed(Exception):
    """Stands for SIGKILL in the middle of a run."""


def kill() -> NoReturn:
    """The threads that write a bank die too: none may write while the run goes on elsewhere."""
    for table in (x for x in gc.get_objects() if type(x) is DiskTable):
        table.worker.shutdown(cancel_futures=True)
    raise Killed


def run(
    config: RunConfig,
    dataset: Dataset,
    folder: Path,
    kill_at: int | None = None,
    every: float = 1e9,
    bank: str = "device",
) -> RunRecord:
    def on_log(point: dict[str, float]) -> None:
        if kill_at is not None and point["step"] >= kill_at:
            kill()

    runtime = Runtime.model_validate({"checkpoint_seconds": every, "bank": bank})
    return Trainer(config, runtime, folder, dataset, on_log).run()


def comparable(record: RunRecord) -> dict[str, object]:
    return {k: v for k, v in record.__dict__.items() if k not in INCIDENTAL and v == v}


@pytest.mark.parametrize(
    ("arm", "precision"), [*((arm, "fp32") for arm in ARMS), ("none", "bf16"), ("ffn", "bf16")]
)
def test_resumes_to_the_bit(
    make_config: Callable[..., RunConfig],
    dataset: Dataset,
    tmp_path: Path,
    arm: str,
    precision: str,
) -> None:
    config = make_config(memory=ARMS[arm], train={"precision": precision, "tokens": 1280})
    whole = run(config, dataset, tmp_path / "whole")
    with pytest.raises(Killed):
        run(config, dataset, tmp_path / "killed", kill_at=8, every=0.0)
    resumed = run(config, dataset, tmp_path / "killed", every=0.0)
    assert resumed.attempts == 2
    assert comparable(resumed) == comparable(whole)
    one, two = (load_weights(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "killed")]
    assert curves[0] == curves[1]


def test_a_run_in_other_hands_is_refused_and_a_finished_one_is_not_trained_again(
    make_config: Callable[..., RunConfig],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.train.prepare", lambda *given: dataset)
    config, folder = make_config(), tmp_path / "run"
    folder.mkdir()
    with (
        FileLock(folder / "lock"),
        pytest.raises(InputError, match="another process trains in"),
    ):
        train_run(config, Runtime(), folder, lambda _: None)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    record = train_run(config, Runtime(checkpoint_seconds=0), folder, lambda _: None)
    assert {path.name for path in folder.iterdir()} == {
        "lock",
        "config.yaml",
        "paths.yaml",
        "curve.csv",
        "model.safetensors",
        "record.json",
    }
    again = train_run(config, Runtime(), folder, lambda _: pytest.fail("trained again"))
    assert comparable(again) == comparable(record)


def test_learns_and_records(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    """The next token is the last plus one: 300 steps bring the loss well below log 300."""
    config = make_config(memory=ARMS["ffn"], train={"tokens": 300 * 64, "lr": 2e-2})
    record = run(config, dataset, tmp_path)
    assert record.status == Status.DONE
    assert record.loss_train < 0.5 * math.log(300)
    assert record.n_runtime == record.n_anchor + record.n_fetched
    assert record.unique_tokens == dataset.train_tokens < record.tokens
    assert record.train_flops == record.flops_per_token * record.tokens
    losses = [record.loss_test_prefix, record.loss_test_document, record.loss_test_off]
    assert all(math.isfinite(loss) for loss in losses)
    assert len(set(losses)) == 3


def test_dense_has_one_loss_under_every_key(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    record = run(make_config(), dataset, tmp_path)
    assert record.loss_test_prefix == record.loss_test_document == record.loss_test_shuffled
    assert math.isnan(record.memory_lr)


def test_divergence_is_named_and_kept(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    record = run(make_config(train={"diverged_above": 0.9}), dataset, tmp_path)
    assert record.status == Status.DIVERGED
    assert "limit" in record.cause
    assert math.isnan(record.loss_test_prefix)


def test_a_loss_that_is_not_finite_stops_the_run(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    trainer = Trainer(make_config(), Runtime(), tmp_path, dataset, lambda _: None)
    with torch.no_grad():
        trainer.model.anchor.norm.gain.fill_(math.nan)
    record = trainer.run()
    assert record.status == Status.DIVERGED
    assert "nan" in record.cause


# moe balances its experts within each micro-batch, so there accumulation means another loss.
@pytest.mark.parametrize("arm", sorted(ARMS.keys() - {"moe"}))
def test_accumulation_changes_nothing_but_rounding(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path, arm: str
) -> None:
    records = [
        run(
            make_config(memory=ARMS[arm], train={"accumulate": k, "tokens": 640}),
            dataset,
            tmp_path / str(k),
        )
        for k in (1, 2, 4)
    ]
    for record in records[1:]:
        assert record.loss_test_prefix == pytest.approx(records[0].loss_test_prefix, rel=1e-4)


def test_untouched_blocks_end_as_they_began(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    """Only leaf 0 is ever routed to: the other leaves end at their initial values, decay or not."""
    rows = dataset.train
    here = replace(rows, path_nl=np.zeros_like(rows.path_nl))
    config = make_config(memory={**ARMS["ffn"], "weight_decay": 0.1})
    trainer = Trainer(config, Runtime(), tmp_path, replace(dataset, train=here), lambda _: None)
    assert trainer.model.bank is not None
    before = {name: tensor.clone() for name, tensor in trainer.model.bank.state().items()}
    trainer.run()
    for name, tensor in trainer.model.bank.state().items():
        assert torch.equal(tensor[1:], before[name][1:])
        assert not torch.equal(tensor[0], before[name][0])


@pytest.mark.parametrize("place", ["host", "disk"])
@pytest.mark.parametrize(
    "kept", [("fp32", "fp32"), ("bf16", "fp32"), ("fp32", "bf16"), ("bf16",) * 2]
)
def test_where_the_bank_lies_changes_no_bit(
    make_config: Callable[..., RunConfig],
    dataset: Dataset,
    tmp_path: Path,
    place: str,
    kept: tuple[str, str],
) -> None:
    """Killed, its last checkpoint damaged, resumed: the record of the run in memory."""
    memory = ARMS["ffn"] | dict(zip(("weights", "moments"), kept, strict=True))
    config = make_config(memory=memory, train={"tokens": 1280})
    expected = run(config, dataset, tmp_path / "memory")
    folder = tmp_path / "other"
    with pytest.raises(Killed):
        run(config, dataset, folder, kill_at=8, every=0.0, bank=place)
    newest = max((folder / "checkpoints").glob("step-*"))
    (newest / "state.json").write_text("{}")
    other = run(config, dataset, folder, every=0.0, bank=place)
    assert comparable(other) == comparable(expected)
    paths = torch.from_numpy(dataset.test.path_document_nl.astype(np.int64))
    one, two = (load_run(f).fetch(paths) for f in (tmp_path / "memory", folder))
    for in_memory, elsewhere in zip(one, two, strict=True):
        assert torch.equal(in_memory.rows, elsewhere.rows)


def test_a_generic_mix_trains_its_block_on_its_share_of_rows(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    """Paths [2, 4] lie behind the 2 and 4 clusters; draws repeat with the step."""
    config = make_config(memory={"type": "ffn", "widths": [3, 2], "generic_mix": "1/3"})
    batches = Batches(config, dataset.train, "cpu")
    drawn = 0
    for step in range(300):
        path_bl = batches.at(step).path_bl
        assert torch.equal(path_bl, batches.at(step).path_bl)
        chosen = batch_rows(len(dataset.train.tokens_nt), 4, step, config.seed)
        own_bl = torch.from_numpy(dataset.train.path_nl[chosen].astype(np.int64))
        generic_b = (path_bl == torch.tensor([2, 4])).all(1)
        assert torch.equal(path_bl[~generic_b], own_bl[~generic_b])
        drawn += int(generic_b.sum())
    assert abs(drawn / 1200 - 1 / 3) < 4 * (2 / 9 / 1200) ** 0.5
    record = run(config, dataset, tmp_path)
    tests = [record.loss_test_generic, record.loss_test_document, record.loss_test_off]
    assert len(set(tests)) == 3
    assert all(math.isfinite(loss) for loss in tests)


def test_every_epoch_sees_every_row_once() -> None:
    batches = [batch_rows(10, 3, step, seed=5) for step in range(6)]
    for epoch in (batches[:3], batches[3:]):
        assert len(np.unique(np.concatenate(epoch))) == 9
    assert not np.array_equal(np.concatenate(batches[:3]), np.concatenate(batches[3:]))
    assert np.array_equal(batches[4], batch_rows(10, 3, 4, seed=5))
    with pytest.raises(InputError, match=r"packs into 10 rows, train\.batch_size is 11"):
        batch_rows(10, 11, 0, seed=5)


def test_a_limited_epoch_repeats_the_start_of_the_first() -> None:
    fresh, again = (
        [batch_rows(20, 3, s, seed=5, limit=rows) for s in range(8)] for rows in (None, 10)
    )
    epochs = [np.concatenate(again[i : i + 3]) for i in (0, 3)]
    assert np.array_equal(epochs[0], np.concatenate(fresh[:3]))
    assert set(epochs[1]) == set(epochs[0])
    assert not np.array_equal(epochs[1], epochs[0])
    assert not set(again[7]) - set(epochs[0])
    assert np.array_equal(batch_rows(20, 3, 7, seed=5, limit=20), batch_rows(20, 3, 7, seed=5))


def test_repeated_text_counts_once(
    make_config: Callable[..., RunConfig], dataset: Dataset, tmp_path: Path
) -> None:
    """20 steps; an epoch has three, and half of a fourth that is left out."""
    config = make_config(train={"epoch_tokens": 14 * SEQ_LEN})
    record = run(config, dataset, tmp_path)
    rows = [batch_rows(len(dataset.train.tokens_nt), 4, s, config.seed) for s in range(3)]
    segments_nt = torch.from_numpy(dataset.train.segments_nt[np.concatenate(rows)])
    assert record.unique_tokens == int(predicted(segments_nt).sum())
    assert 6 * record.unique_tokens < record.tokens < 7 * record.unique_tokens
