"""A copy of the project with one more file and one more line sweeps a new memory type."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.record import read_runs
from tests.sweeps.conftest import TINY

ROOT = Path(__file__).parents[2]
REGISTRY = "BLOCK_TYPES: dict[str, BlockType] = {\n"
LINE = '    "bias": BlockType("core.memory.bias:BiasMemory", lambda a: a.d_model),\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Core and sweeps with the type `bias`."""
    project = tmp_path / "project"
    for package in ("core", "sweeps"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, project / package, ignore=ignored)
    shutil.copy(ROOT / "tests/core/memory/bias.py", project / "core/memory/bias.py")
    registry = project / "core/memory_types.py"
    text = registry.read_text()
    assert text.count(REGISTRY) == 1
    registry.write_text(text.replace(REGISTRY, REGISTRY + LINE))
    return project


def test_a_new_type_is_swept(
    project: Path,
    corpus: Path,
    tmp_path: Path,
    write_grid: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(project))
    text = TINY.replace("CORPUS", str(corpus)).replace("type: ffn", "type: bias")
    grid = write_grid(text.replace("seeds: 2", "seeds: 1"))
    results = tmp_path / "results"

    def sweeps(command: str, *options: str) -> str:
        words = [sys.executable, "-m", "sweeps", command, str(grid), "--results", str(results)]
        done = subprocess.run([*words, *options], capture_output=True, text=True, cwd=project)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bank = 2 * 16 * (2 * 2 + 4)  # layers, d_model, widths (2, 1) on 2 and 4 clusters
    planned = json.loads(sweeps("dry-run", "--json"))["runs"]
    assert [run["n_bank"] for run in planned] == [0, bank]
    assert "2 done" in sweeps("run")
    table = read_runs(results / "tiny" / "runs.csv").set_index("memory_type")
    assert table.loc["bias", "n_bank"] == bank
    assert table.loc["bias", "loss_test_prefix"] != table.loc["bias", "loss_test_off"]
