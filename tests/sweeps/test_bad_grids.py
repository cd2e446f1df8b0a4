"""Bad input is one line with file and key, exit status 2, and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main

Write = Callable[..., Path]

# What the file holds -> what the line must say besides the file.
CASES = {
    "": "holds NoneType",
    "- d32\n": "holds list",
    "arms: {dense: {anchor: d32}": "not valid YAML",
    "base: {}\n": "arms",
    "arms: {}\n": "arms",
    "arms: []\n": "arms",
    "arms: {dense: {anchor: d32}, dense: {anchor: d32}}\n": "stands twice",
    "arms: {dense: &a {anchor: d32}, other: *a}\n": "aliases",
    "a: &a [x]\nb: &b [*a, *a]\narms: {}\n": "aliases",
    "arms: {1: {anchor: d32}}\n": "not a word",
    "arms: {'a b': {anchor: d32}}\n": "arm a b",
    "arms: {dense: {anchor: d32}}\nseed: 2\n": "did you mean seeds",
    "arms: {dense: {anchor: d32}}\nseeds: 0\n": "seeds = 0",
    "arms: {dense: {anchor: d32}}\nseeds: -1\n": "seeds = -1",
    "arms: {dense: {anchor: d32}}\nseeds: []\n": "seeds = []",
    "arms: {dense: {anchor: d32}}\nseeds: [1, 1]\n": "seeds = [1, 1]",
    "arms: {dense: {anchor: d32}}\nseeds: [-1]\n": "seeds = [-1]",
    "arms: {dense: {anchor: d32}}\nseeds: two\n": "seeds",
    "arms: {dense: {anchor: d32}}\nseeds: 200000\n": "at most 100,000",
    "arms: {dense: d32}\n": "arms",
    "arms: {dense: {}}\n": "anchor: missing",
    "arms: {dense: {anchor: d33}}\n": "d33",
    "arms: {dense: {anchor: -4}}\n": "anchor",
    "arms: {dense: {anchor: {size: d32, layers: -1}}}\n": "anchor.layers = -1",
    "arms: {dense: {anchr: d32}}\n": "did you mean anchor",
    "arms: {dense: {anchor: d32, seed: 3}}\n": "seed",
    "base: {seed: 3}\narms: {dense: {anchor: d32}}\n": "seed",
    "base: {train: 3}\narms: {dense: {anchor: d32}}\n": "base.train",
    "base: {trian: {lr: 1}}\narms: {dense: {anchor: d32}}\n": "did you mean train",
    "base: {train: {tokns: 5}}\narms: {dense: {anchor: d32}}\n": "did you mean tokens",
    "arms: {dense: {axes: {anchor: d32}}}\n": "axes.anchor",
    "arms: {dense: {axes: {anchor: []}}}\n": "axes.anchor: empty",
    "arms: {dense: {axes: [anchor]}}\n": "axes",
    "arms: {dense: {anchor: d32, axes: {anchor: [d32]}}}\n": "anchor set twice",
    "arms: {dense: {anchor: {size: d32}, axes: {anchor.ffn: [64], anchor: [d48]}}}\n": "set twice",
    "arms: {dense: {anchor: d32, train: {lr: 1}, axes: {train.lr: [2]}}}\n": "train.lr set twice",
    "arms: {dense: {anchor: d32, axes: {train.lr: [1]}, zip: [{train.lr: 1}]}}\n": "set twice",
    "arms: {dense: {anchor: d32, zip: [{train.lr: 1}, {train.clip: 1}]}}\n": "zip[1] sets",
    "arms: {dense: {anchor: d32, zip: [{}]}}\n": "zip[0] sets nothing",
    "arms: {dense: {anchor: d32, axes: {train.lr: [0.01, 1e-2]}}}\n": "are the same run",
    "arms: {dense: {anchor: d32, axes: {train.lrr: [1]}}}\n": "did you mean lr",
    "arms: {dense: {anchor: d32, axes: {lr: [1]}}}\n": "lr: unknown key",
    "arms: {dense: {anchor: d32, axes: {train.lr: [-1]}}}\n": "train.lr = -1",
    "arms: {dense: {anchor: d32, axes: {train.lr: [fast]}}}\n": "train.lr = 'fast'",
    "arms: {dense: {anchor: d32, axes: {train.lr.x: [1]}}}\n": "train.lr",
    "arms: {dense: {anchor: d32, axes: {seed: [1, 2]}}}\n": "seed is no axis",
    "arms: {dense: {anchor: d32, rates_of: ffn}}\n": "rates_of needs learning_rates",
    "arms: {ffn: {anchor: d32, memory: {type: ffn}}}\n": "widths",
    "arms: {ffn: {anchor: d32, memory: {type: ffn, widths: [1, 1, 1]}}}\n": "widths has 3 levels",
    "arms: {ffn: {anchor: d32, memory: {type: fnn, widths: [1]}}}\n": "memory.type = 'fnn'",
    "arms: {dense: {anchor: d32, data: {corpus: missing.txt}}}\n": "missing.txt",
    "arms: {dense: {anchor: d32, data: {corpus: []}}}\n": "data.corpus",
    "arms: {dense: {anchor: d32, train: {tokens: 10}}}\n": "train.tokens 10",
    "arms: {dense: {anchor: d32}}\nlearning_rates: missing.csv\n": "missing.csv",
    "arms: {dense: {anchor: d32, train: {lr: 1}}}\nlearning_rates: x.csv\n": "train.lr is set",
}


def refuse(arguments: list[str], results: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refused command prints."""
    assert main(["run", *arguments, "--results", str(results)]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert not results.exists()
    return printed.err


@pytest.mark.parametrize(("text", "message"), CASES.items())
def test_bad_grid(
    text: str,
    message: str,
    write_grid: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refuse([str(write_grid(text, "bad.yaml"))], tmp_path / "results", capsys)
    assert "bad.yaml" in line or "missing" in line
    assert message in line


@pytest.mark.parametrize("name", ["nothing", "no/such.yaml"])
def test_unknown_grid_lists_the_known(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "quick" in refuse([name], tmp_path / "results", capsys)


def test_text_that_is_no_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"# caf\xe9\narms: {}\n")
    assert "UTF-8" in refuse([str(path)], tmp_path / "results", capsys)


@pytest.mark.parametrize("name", ["runs.yaml", "a b.yaml"])
def test_a_grid_must_name_a_folder_of_its_own(
    name: str, write_grid: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_grid("arms: {dense: {anchor: d32}}\n", name)
    assert "folder" in refuse([str(path)], tmp_path / "results", capsys)


@pytest.mark.parametrize("seeds", ["0", "-1"])
def test_no_seeds(
    seeds: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refuse([str(tiny), "--seeds", seeds], tmp_path / "results", capsys)
    assert f"seeds = {seeds}" in line
