"""Checkpoints: written whole or not at all, checksummed, loaded without running code."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.config import RunConfig, parse_config
from core.errors import InputError
from core.writing import whole_file, whole_folder

KEPT = 2


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write folder/step-N with its tensors, its JSON state and their checksums.

    Where the disk is full it raises, and what was half written goes.
    """
    with whole_folder(folder / f"step-{step:09d}") as partial:
        _write(partial, tensors, state)
    left = folder.glob(".step-*")  # by killed processes
    for old in (*_steps(folder)[:-KEPT], *left):
        shutil.rmtree(old)


def oldest_kept(folder: Path) -> int:
    """The step down to which a run may go back once one more checkpoint stands; 0: the beginning.

    While the next checkpoint is being written, those that stand are still needed.
    """
    steps = [int(path.name.removeprefix("step-")) for path in _steps(folder)]
    return steps[0] if len(steps) >= KEPT else 0


def _write(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "tensors.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    checksums = {name: _sha256(folder / name) for name in ("tensors.safetensors", "state.json")}
    (folder / "checksums.json").write_text(json.dumps(checksums))


def load_checkpoint(
    folder: Path,
) -> tuple[int, dict[str, Tensor], dict[str, Any], list[str]] | None:
    """The newest sound checkpoint as (step, tensors, state, damaged), None where there is none.

    `damaged` names the newer ones that were passed over because a checksum did not match.
    """
    damaged: list[str] = []
    for path in reversed(_steps(folder)):
        if _sound(path):
            tensors = _read(path / "tensors.safetensors")
            state = json.loads((path / "state.json").read_text())
            return int(path.name.removeprefix("step-")), tensors, state, damaged
        damaged.append(path.name)
    return None


def save_weights(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file; `metadata` rides in its header."""
    with whole_file(path) as partial:
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Raises InputError where it is missing or damaged."""
    try:
        return _read(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be loaded ({error}); train the run again") from None


def saved_config(path: Path) -> RunConfig:
    """The config in the header of a run's weights. Raises InputError where there is none."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be loaded ({error}); train the run again") from None
    if "config" not in header:
        raise InputError(f"{path}: its header holds no config; give the file that a run wrote")
    return parse_config(json.loads(header["config"]), str(path))


def _read(path: Path) -> dict[str, Tensor]:
    """Read, not mapped: moments live on in what a resumed run loads, its checkpoint does not."""
    tensors: dict[str, Tensor] = load_file(path, backend="pread")
    return tensors


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _sound(path: Path) -> bool:
    try:
        checksums = json.loads((path / "checksums.json").read_text())
        return all(_sha256(path / name) == expected for name, expected in checksums.items())
    except (OSError, ValueError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
