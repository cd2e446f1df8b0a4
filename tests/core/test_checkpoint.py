"""A checkpoint is whole or it is not used."""

import errno
from pathlib import Path

import pytest
import torch

from core.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from core.errors import InputError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 12, TENSORS, {"loss": 0.1 + 0.2})
    step, tensors, state, damaged = load_checkpoint(tmp_path) or pytest.fail("nothing found")
    assert (step, state, damaged) == (12, {"loss": 0.1 + 0.2}, [])
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_what_was_loaded_outlives_its_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, {})
    _, tensors, _, _ = load_checkpoint(tmp_path) or pytest.fail("nothing found")
    path = tmp_path / "step-000000001/tensors.safetensors"
    with path.open("r+b") as file:  # in place: a mapped file would show it
        file.write(bytes(path.stat().st_size))
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_keeps_the_last_two(tmp_path: Path) -> None:
    for step in (1, 5, 10):
        save_checkpoint(tmp_path, step, TENSORS, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000005", "step-000000010"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_passes_over_a_damaged_one_and_says_so(tmp_path: Path, file: str, harm: str) -> None:
    save_checkpoint(tmp_path, 1, TENSORS, {"at": 1})
    save_checkpoint(tmp_path, 2, TENSORS, {"at": 2})
    path = tmp_path / "step-000000002" / file
    content = path.read_bytes()
    if harm == "remove":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    step, _, state, damaged = load_checkpoint(tmp_path) or pytest.fail("nothing found")
    assert (step, state, damaged) == (1, {"at": 1}, ["step-000000002"])


def test_a_half_written_one_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".partial").mkdir()
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_a_full_disk_leaves_the_checkpoint_before_and_no_part_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    save_checkpoint(tmp_path, 1, TENSORS, {"at": 1})
    monkeypatch.setattr("core.checkpoint.save_file", fill)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, TENSORS, {"at": 2})
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path / "model.safetensors", TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_weights_refuse_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, TENSORS, {"config": "{}"})
    assert torch.equal(load_weights(path)["a"], TENSORS["a"])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="train the run again"):
        load_weights(path)
