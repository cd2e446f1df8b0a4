"""Grids on a small made-up text."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import sweeps  # noqa: F401  # sets what Ray and MLflow read when they are imported

TINY = """\
# Does the path from text to table hold?
base:
  data: {corpus: CORPUS, vocab_size: 300, seq_len: 32, min_tokens: 8}
  tree: {dimensions: 8, branching: [2, 2]}
  anchor: d16
  train: {tokens: 20_000, batch_size: 4}
  evaluate: {validation_windows: 16, test_windows: 16}
arms:
  dense: {}
  ffn: {memory: {type: ffn, widths: [2, 1]}, axes: {memory.lr: [1e-2]}}
seeds: 2
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text.jsonl")


def write_corpus(path: Path) -> Path:
    """Four topics of made-up words, 300 documents."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(400)]
    with path.open("w") as file:
        for number in range(300):
            topic = words[number % 4 * 100 : number % 4 * 100 + 100]
            text = " ".join(rng.choices(topic, k=120))
            file.write(json.dumps({"title": f"document {number}", "text": text}) + "\n")
    return path


@pytest.fixture
def write_grid(tmp_path: Path) -> Callable[..., Path]:
    """Writes a grid file and gives its path."""

    def write(text: str, name: str = "tiny.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny(corpus: Path, write_grid: Callable[..., Path]) -> Path:
    """A grid of four short runs."""
    return write_grid(TINY.replace("CORPUS", str(corpus)))


@pytest.fixture
def private() -> list[str]:
    """Opens a command that may mount what no other process sees."""
    command = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare"):
        pytest.skip("unshare is not on this machine")
    probe = [*command, "mount", "-t", "tmpfs", "none", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("private mounts are not allowed here")
    return command
