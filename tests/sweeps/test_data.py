"""Text travels in one file to a machine that has neither network nor packages."""

import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import Runtime
from core.dataset import dataset_folder
from core.identity import run_id, tree_fingerprint
from core.prepare import prepare
from core.record import Status
from core.train import train_run
from sweeps.__main__ import main
from sweeps.grid import load_grid
from tests.sweeps.conftest import TINY

PACKAGED = TINY.replace("corpus: CORPUS, ", "").replace(
    "{dimensions: 8, branching", "{embedder: minilm-words, key: prefix, branching"
)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a run on prepared text fetches nothing")


@pytest.fixture
def packed(tiny: Path, tmp_path: Path, write_grid: Callable[..., Path]) -> Path:
    """The bundle of a grid on packaged text; what lies in its place is the made-up one."""
    results, config = tmp_path / "here", load_grid(str(tiny)).trials[0].config
    prepare(config.data, config.tree, results / "cache")
    wanted = load_grid(str(write_grid(PACKAGED, "packaged.yaml"))).trials[0].config
    made, asked = (
        dataset_folder(results / "cache", tree_fingerprint(c.data, c.tree))
        for c in (config, wanted)
    )
    made.rename(asked)
    assert main(["data", str(tmp_path / "packaged.yaml"), "--results", str(results)]) == 0
    return results / "data.tar.xz"


def test_a_grid_trains_from_its_bundle_alone(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    with tarfile.open(packed) as archive:
        archive.extractall(there, filter="data")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    for trial in load_grid(str(tmp_path / "packaged.yaml"), seeds=1).trials:
        folder = there / "runs" / run_id(trial.config)
        record = train_run(trial.config, Runtime(results=there), folder, lambda _: None)
        assert record.status == Status.DONE
    assert {path.name for path in (there / "cache").iterdir()} == {"trees"}


def test_each_dataset_is_packed_once_and_nothing_else(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(packed) as archive:
        names = [Path(name) for name in archive.getnames()]
    assert len({name.parts[:3] for name in names if len(name.parts) > 2}) == 1
    assert len(names) == len(set(names)) and not [n for n in names if n.suffix == ".lock"]


def test_a_grid_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "quick", "quickest"]) == 2
    assert "grid quickest: no such file" in capsys.readouterr().err
