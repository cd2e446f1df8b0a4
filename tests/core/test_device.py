"""A bank that the machine cannot hold is refused before anything is made."""

from collections.abc import Callable
from pathlib import Path

import pytest

import core.device
from core.accounting import count_parameters
from core.config import RunConfig, Runtime
from core.device import check_bank_fits, check_device, memory_bytes
from core.errors import InputError
from core.train import train_run

Make = Callable[..., RunConfig]


def test_a_bank_takes_its_weights_and_two_moments(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(memory={"type": "ffn", "widths": [3, 2]})
    bank = 2 * 3 * 16 * (3 * 2 + 2 * 4)
    assert count_parameters(config).bank == bank
    monkeypatch.setattr(core.device, "memory_bytes", lambda _: 12 * bank)
    check_bank_fits(config, Runtime())
    monkeypatch.setattr(core.device, "memory_bytes", lambda _: 12 * bank - 1)
    with pytest.raises(InputError, match=r"a bank of 1,344 parameters takes .* give"):
        check_bank_fits(config, Runtime())


@pytest.mark.parametrize(
    "memory",
    [
        {"type": "ffn", "widths": [100_000, 100_000_000]},
        {"type": "pkm", "keys": 1_000_000, "heads": 2, "top_k": 2},
        {"type": "moe", "experts": 1_000_000_000, "top_k": 1},
    ],
)
def test_training_refuses_it_and_writes_nothing(
    make_config: Make, tmp_path: Path, memory: dict[str, object]
) -> None:
    with pytest.raises(InputError) as error:
        folder = tmp_path / "runs" / "x"
        train_run(make_config(memory=memory), Runtime(results=tmp_path), folder, lambda _: None)
    for words in ("a bank of ", "GiB with its moments, cpu has ", "give smaller memory.widths"):
        assert words in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_container_holds_what_its_limit_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(core.device, "CONTAINER_LIMIT", limit)
    whole = memory_bytes("cpu")
    assert whole > 2**28
    for text, expected in (("max", whole), ("1048576", 2**20), (str(2**62), whole)):
        limit.write_text(f"{text}\n")
        assert memory_bytes("cpu") == expected


def test_devices() -> None:
    check_device("cpu")
    for device in ("gpu", "cuda:99", "cuda:x", ""):
        with pytest.raises(InputError, match=f"device {device}: this machine has cpu"):
            check_device(device)


def test_a_bank_on_disk_takes_what_the_run_can_reach(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block of a small tree; of a large one, a row a document, level and step."""
    disk = Runtime(bank="disk", results=tmp_path / "not" / "there")
    memory = {"type": "ffn", "widths": [3, 2]}
    small = make_config(memory=memory)
    every_block = 2 * (8 + 12 * 2 * 3 * 3 * 16) + 4 * (8 + 12 * 2 * 3 * 2 * 16)
    wide = make_config(memory=memory, tree={"branching": [2, 1_000_000]})
    reached = wide.steps * wide.train.batch_size
    for config, needed in (
        (small, every_block),
        (wide, every_block + (reached - 4) * (8 + 12 * 2 * 3 * 2 * 16)),
    ):
        monkeypatch.setattr(core.device, "free_bytes", lambda _, needed=needed: needed)
        check_bank_fits(config, disk)
        monkeypatch.setattr(core.device, "free_bytes", lambda _, needed=needed: needed - 1)
        with pytest.raises(InputError, match=r"a bank of .* the disk has .* give"):
            check_bank_fits(config, disk)


def test_rows_that_tokens_address_stay_on_the_device(make_config: Make) -> None:
    config = make_config(memory={"type": "pkm", "keys": 6, "heads": 2, "top_k": 3})
    with pytest.raises(InputError, match=r"bank disk: memory.type pkm .* allowed is device"):
        check_bank_fits(config, Runtime(bank="disk"))
