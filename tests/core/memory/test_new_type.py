"""Adding a memory type takes one class and one line."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from core.accounting import count_parameters
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.memory_types import BLOCK_TYPES, BlockType
from core.trainer import Trainer


def test_a_new_type_trains(
    make_config: Callable[..., RunConfig],
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = BlockType("tests.core.memory.bias:BiasMemory", lambda a: a.d_model)
    monkeypatch.setitem(BLOCK_TYPES, "bias", line)
    config = make_config(memory={"type": "bias", "widths": [2, 1]})
    trainer = Trainer(config, Runtime(), tmp_path, dataset, lambda _: None)
    record = trainer.run()
    bank = trainer.model.bank
    assert bank is not None
    assert (
        count_parameters(config).bank
        == sum(table.rows.numel() for table in bank.resident().values())
        == 2 * 16 * (2 * 2 + 4)
    )
    assert record.memory_type == "bias"
    assert math.isfinite(record.loss_test_prefix)
    assert record.loss_test_prefix != record.loss_test_off
