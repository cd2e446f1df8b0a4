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
    check_bank_fits(config, "cpu")
    monkeypatch.setattr(core.device, "memory_bytes", lambda _: 12 * bank - 1)
    with pytest.raises(InputError, match=r"a bank of 1,344 parameters takes .* give"):
        check_bank_fits(config, "cpu")


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
