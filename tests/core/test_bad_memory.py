"""What a memory cannot be is refused in one line: given, allowed, what to change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.core.small_runs import MEMORIES
from tests.core.test_command import refused

FFN = {"type": "ffn", "widths": [4, 2]}
PKM = MEMORIES["pkm"]

# On an anchor of two layers and a tree of two levels.
BAD: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "unknown type": (
        {"type": "fnn", "widths": [1]},
        ("memory.type = 'fnn'", "allowed: none, generic, ffn, kv", "unknown type"),
    ),
    "more levels than the tree": (
        {**FFN, "widths": [4, 2, 1]},
        ("memory.widths has 3 levels", "tree.branching has 2", "shorten widths or add a level"),
    ),
    "too large": (
        {**FFN, "widths": [4, 10**9]},
        ("a bank of 384,000,000,768 parameters takes 4291.5 GiB", "cpu has", "give smaller"),
    ),
    "more than there are slots": (
        {**PKM, "top_k": 7},
        ("top_k 7", "above the 6 keys", "lower it or give more keys"),
    ),
    "more than there are experts": (
        {**MEMORIES["moe"], "top_k": 4},
        ("top_k 4", "above the 3 experts", "lower it or give more experts"),
    ),
    "a layer that the anchor has not": (
        {**FFN, "placement": [1, 2]},
        ("memory.placement (1, 2)", "the anchor's layers 0 to 1", "name fewer layers or a deeper"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_before_training(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory, words = BAD[name]
    values = {"anchor": "d16", "tree": {"branching": [2, 2]}, "memory": memory}
    path, results = tmp_path / "run.yaml", tmp_path / "results"
    path.write_text(yaml.safe_dump(values))
    line = refused(capsys, results, "train", path)
    for word in words:
        assert word in line
    assert not results.exists()
