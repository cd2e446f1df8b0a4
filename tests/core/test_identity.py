"""The run id changes with the result, and with nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig
from core.identity import corpus_fingerprint, run_id, tree_fingerprint, windows_fingerprint

CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"anchor": "d32"},
    {"anchor": {"size": "d16", "tied": False}},
    {"memory": {"type": "ffn", "widths": [2, 1]}},
    {"train": {"lr": 2e-2}},
    {"train": {"precision": "bf16"}},
    {"tree": {"branching": [2, 3]}},
    {"tree": {"key": "prefix"}},
    {"tree": {"embedder": "random"}},
    {"data": {"vocab_size": 301}},
    {"data": {"test": 0.06}},
    {"evaluate": {"test_windows": 25}},
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("some words to learn from", encoding="utf-8")
    return path


def test_every_field_counts(make_config: Callable[..., RunConfig], text: Path) -> None:
    def identify(changes: dict[str, Any]) -> str:
        data = {"corpus": str(text), **changes.get("data", {})}
        return run_id(make_config(**{**changes, "data": data}))

    ids = [identify(changes) for changes in [{}, *CHANGES]]
    assert len(set(ids)) == len(ids)
    assert identify({}) == ids[0]


def test_the_content_counts_not_the_place(
    make_config: Callable[..., RunConfig], text: Path, tmp_path: Path
) -> None:
    moved, changed = tmp_path / "moved" / text.name, tmp_path / "changed" / text.name
    for path, content in ((moved, text.read_text()), (changed, "other words")):
        path.parent.mkdir()
        path.write_text(content, encoding="utf-8")
    one, two, three = (make_config(data={"corpus": str(p)}) for p in (text, moved, changed))
    assert run_id(one) == run_id(two) != run_id(three)
    assert corpus_fingerprint(one.data) == corpus_fingerprint(two.data)


def test_stages_depend_on_what_they_read(make_config: Callable[..., RunConfig], text: Path) -> None:
    base = make_config(data={"corpus": str(text)})
    tokens = make_config(data={"corpus": str(text), "vocab_size": 301})
    tree = make_config(data={"corpus": str(text)}, tree={"seed": 1})
    assert corpus_fingerprint(base.data) == corpus_fingerprint(tokens.data)
    assert windows_fingerprint(base.data) == windows_fingerprint(tree.data)
    assert windows_fingerprint(base.data) != windows_fingerprint(tokens.data)
    assert tree_fingerprint(base.data, base.tree) != tree_fingerprint(tree.data, tree.tree)


def test_golden(make_config: Callable[..., RunConfig]) -> None:
    """Ids of the default corpus are part of committed tables: a change here needs a new RECIPE."""
    config = RunConfig.model_validate({"anchor": "d64"})
    assert run_id(config) == "0710f87e2285"
    tuned = {
        "anchor": "d32",
        "memory": {"type": "ffn", "widths": [10, 4], "lr": 1e-3},
        "train": {"tokens": 8e5, "batch_size": 8, "beta2": 0.99, "lr": 2.2e-2},
    }
    assert run_id(RunConfig.model_validate(tuned)) == "a5bcd0ef4d04"
