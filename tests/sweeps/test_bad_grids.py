"""Bad input is one line with file and key, exit status 2, nothing started and nothing written."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.__main__ import main

Write = Callable[..., Path]
Refuse = Callable[..., str]

ONE = "arms: {dense: {anchor: d32}}\n"
EARLY = "arms: {{dense: {{anchor: d32, {more}}}}}\n"
RATES = "early_stopping: true, axes: {train.lr: [1e-2, 2e-2]}"
CLIPS = "early_stopping: true, axes: {train.clip: [1, 2]}"
MEMORY = ", memory: {type: ffn, widths: [2, 1]}"
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\narms: {dense: {axes: {train.lr: *c}}}\n"

# Name of the case, what the file holds, what the line must say besides the file.
GRIDS = [
    # the file
    ("empty file", "", "holds NoneType"),
    ("list at the top", "- d32\n", "holds list"),
    ("unclosed brace", "arms: {dense: {anchor: d32}", "not valid YAML"),
    ("tab as indent", "arms:\n\tdense: {anchor: d32}\n", "not valid YAML"),
    ("brackets without end", "[" * 5000, "not valid YAML"),
    ("YAML bomb", BOMB, "aliases"),
    ("alias of an arm", "arms: {dense: &a {anchor: d32}, other: *a}\n", "aliases"),
    ("code", "arms: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ("key twice", "arms: {dense: {anchor: d32}, dense: {anchor: d32}}\n", "stands twice"),
    ("key that is a number", "arms: {1: {anchor: d32}}\n", "not a word"),
    # arms
    ("no arms", "base: {}\n", "arms"),
    ("empty arms", "arms: {}\n", "arms"),
    ("list of arms", "arms: []\n", "arms"),
    ("name with a space", "arms: {'a b': {anchor: d32}}\n", "arm a b"),
    ("arm that is a word", "arms: {dense: d32}\n", "arms"),
    ("arm without anchor", "arms: {dense: {}}\n", "anchor: missing"),
    # seeds
    ("seed for seeds", f"{ONE}seed: 2\n", "did you mean seeds"),
    ("no seed", f"{ONE}seeds: 0\n", "seeds = 0"),
    ("negative number of seeds", f"{ONE}seeds: -1\n", "seeds = -1"),
    ("empty seeds", f"{ONE}seeds: []\n", "seeds = []"),
    ("seed twice", f"{ONE}seeds: [1, 1]\n", "seeds = [1, 1]"),
    ("negative seed", f"{ONE}seeds: [-1]\n", "seeds = [-1]"),
    ("seed beyond 63 bits", f"{ONE}seeds: [9223372036854775808]\n", "seed = 9223372036854775808"),
    ("seeds in words", f"{ONE}seeds: two\n", "seeds"),
    ("seeds that are not a number", f"{ONE}seeds: .nan\n", "seeds"),
    ("too many runs", f"{ONE}seeds: 200000\n", "at most 100,000"),
    ("far too many runs", f"{ONE}seeds: 1000000000000000000000000000000\n", "at most 100,000"),
    ("seed in an arm", "arms: {dense: {anchor: d32, seed: 3}}\n", "seed"),
    ("seed in the base", f"base: {{seed: 3}}\n{ONE}", "seed"),
    ("seed as an axis", "arms: {dense: {anchor: d32, axes: {seed: [1, 2]}}}\n", "seed is no axis"),
    ("rates of no table", "arms: {dense: {anchor: d32, rates_of: ffn}}\n", "needs learning_rates"),
    ("rates of a budget in no table", f"{ONE}rates_at: 2e7\n", "needs learning_rates"),
    # early stopping
    (
        "early stopping some day",
        EARLY.format(more="early_stopping: soon"),
        "True, False or 'always'",
    ),
    ("early stopping of seeds", EARLY.format(more=RATES) + "seeds: 2\n", "2 seeds"),
    ("early stopping of sizes", EARLY.format(more=CLIPS), "train.lr and memory.lr"),
    ("early stopping of one rate", EARLY.format(more="early_stopping: true"), "no two runs"),
    ("early stopping that sees its targets", EARLY.format(more=RATES + MEMORY), "whole document"),
    # fields
    ("unknown size", "arms: {dense: {anchor: d33}}\n", "d33"),
    ("negative size", "arms: {dense: {anchor: -4}}\n", "anchor"),
    (
        "negative layers",
        "arms: {dense: {anchor: {size: d32, layers: -1}}}\n",
        "anchor.layers = -1",
    ),
    (
        "layers beyond reason",
        "arms: {dense: {anchor: {size: d32, layers: 9000000000}}}\n",
        "anchor.layers = 9000000000",
    ),
    ("slip in a section of an arm", "arms: {dense: {anchr: d32}}\n", "did you mean anchor"),
    ("slip in a section of the base", f"base: {{trian: {{lr: 1}}}}\n{ONE}", "did you mean train"),
    ("slip in a field", f"base: {{train: {{tokns: 5}}}}\n{ONE}", "did you mean tokens"),
    ("section that is a number", f"base: {{train: 3}}\n{ONE}", "base.train"),
    ("fewer tokens than a step", f"base: {{train: {{tokens: 10}}}}\n{ONE}", "train.tokens 10"),
    ("tokens beyond 63 bits", f"base: {{train: {{tokens: 1e30}}}}\n{ONE}", "train.tokens = 1"),
    ("infinite tokens", f"base: {{train: {{tokens: .inf}}}}\n{ONE}", "train.tokens = inf"),
    ("half a token", f"base: {{train: {{tokens: 1000.5}}}}\n{ONE}", "train.tokens = 1000.5"),
    ("rate that is not a number", f"base: {{train: {{lr: .nan}}}}\n{ONE}", "train.lr = nan"),
    ("infinite rate", f"base: {{train: {{lr: .inf}}}}\n{ONE}", "train.lr = inf"),
    ("boolean rate", f"base: {{train: {{lr: true}}}}\n{ONE}", "train.lr = True"),
    ("share above one", f"base: {{data: {{test: 1.5}}}}\n{ONE}", "data.test = 1.5"),
    ("all text held out", f"base: {{data: {{test: 0.6}}}}\n{ONE}", "validation + test"),
    ("tree of one branch", f"base: {{tree: {{branching: [1]}}}}\n{ONE}", "tree.branching.0 = 1"),
    ("memory without widths", "arms: {ffn: {anchor: d32, memory: {type: ffn}}}\n", "widths"),
    (
        "memory deeper than the tree",
        "arms: {ffn: {anchor: d32, memory: {type: ffn, widths: [1, 1, 1]}}}\n",
        "widths has 3 levels",
    ),
    (
        "unknown memory",
        "arms: {ffn: {anchor: d32, memory: {type: fnn, widths: [1]}}}\n",
        "memory.type = 'fnn'",
    ),
    # axes
    ("axis that is no list", "arms: {dense: {axes: {anchor: d32}}}\n", "axes.anchor"),
    ("empty axis", "arms: {dense: {axes: {anchor: []}}}\n", "axes.anchor: empty"),
    ("list of axes", "arms: {dense: {axes: [anchor]}}\n", "axes"),
    ("axis over a field", "arms: {dense: {anchor: d32, axes: {anchor: [d32]}}}\n", "anchor set tw"),
    (
        "axis over a part of an axis",
        "arms: {dense: {axes: {anchor.ffn: [64], anchor: [d48]}}}\n",
        "anchor.ffn and anchor set twice",
    ),
    (
        "axis over a nested field",
        "arms: {dense: {anchor: d32, train: {lr: 1}, axes: {train.lr: [2]}}}\n",
        "train.lr set twice",
    ),
    (
        "axis and zip over one key",
        "arms: {dense: {anchor: d32, axes: {train.lr: [1]}, zip: [{train.lr: 1}]}}\n",
        "train.lr set twice",
    ),
    (
        "zip with different keys",
        "arms: {dense: {anchor: d32, zip: [{train.lr: 1}, {train.clip: 1}]}}\n",
        "zip[1] sets",
    ),
    ("zip of nothing", "arms: {dense: {anchor: d32, zip: [{}]}}\n", "zip[0] sets nothing"),
    (
        "point twice",
        "arms: {dense: {anchor: d32, axes: {train.lr: [0.01, 1e-2]}}}\n",
        "are the same run",
    ),
    (
        "axis over an unknown field",
        "arms: {dense: {anchor: d32, axes: {train.lrr: [1]}}}\n",
        "did you mean lr",
    ),
    (
        "axis without its section",
        "arms: {dense: {anchor: d32, axes: {lr: [1]}}}\n",
        "lr: unknown key",
    ),
    (
        "negative value of an axis",
        "arms: {dense: {anchor: d32, axes: {train.lr: [-1]}}}\n",
        "train.lr = -1",
    ),
    (
        "word for a number",
        "arms: {dense: {anchor: d32, axes: {train.lr: [fast]}}}\n",
        "train.lr = 'fast'",
    ),
    (
        "axis inside a number",
        "arms: {dense: {anchor: d32, axes: {train.lr.x: [1]}}}\n",
        "train.lr: ",
    ),
    # what no machine has
    (
        "too large for the memory",
        "arms: {dense: {axes: {anchor: [d32, {size: d32, ffn: 900000000000}]}}}\n",
        "of memory, this machine has",
    ),
    # other files
    (
        "text that is not there",
        "arms: {dense: {anchor: d32, data: {corpus: missing.txt}}}\n",
        "data.corpus: missing.txt: no such file",
    ),
    ("no text", "arms: {dense: {anchor: d32, data: {corpus: []}}}\n", "data.corpus"),
    ("no table of rates", f"{ONE}learning_rates: missing.csv\n", "learning_rates:"),
    (
        "rate beside the table of rates",
        "arms: {dense: {anchor: d32, train: {lr: 1}}}\nlearning_rates: x.csv\n",
        "train.lr is set",
    ),
]

DOCUMENT = b'{"text": "%s"}\n' % (b"one and the same long story " * 50)
# Name of the case, name and contents of the text file, what the line must say besides the grid.
TEXTS = [
    ("not UTF-8", "text.txt", b"a caf\xe9 by the sea", "text.txt, line 1: not UTF-8"),
    ("nothing in it", "text.txt", b" \n", "text.txt: holds no text"),
    ("one document", "text.jsonl", DOCUMENT, "1 documents in 1 groups"),
    ("copies of one document", "text.jsonl", DOCUMENT * 50, "50 documents in 1 groups"),
    ("stubs", "text.jsonl", b'{"text": "short"}\n' * 50, "no document of 20 characters"),
    ("no JSON", "text.jsonl", DOCUMENT + b"text\n", "text.jsonl, line 2: not JSON"),
    ("rows without text", "text.jsonl", b'{"title": "x"}\n', "text.jsonl, line 1: no text"),
    ("cut short", "text.jsonl.gz", gzip.compress(DOCUMENT * 9)[:-9], "cannot be read"),
    ("no table", "text.parquet", b"PAR1", "text.parquet: not a parquet file"),
    ("unknown kind", "text.pdf", b"%PDF", "text.pdf: unknown ending"),
]


@pytest.fixture
def refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refuse:
    """Runs a sweep that is refused, and gives the one line that it prints."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("ray.init", lambda **given: pytest.fail("started"))
        before = sorted(tmp_path.rglob("*"))
        assert main(["run", *arguments, "--results", str(tmp_path / "results")]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        printed = capsys.readouterr()
        assert not printed.out
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        return printed.err

    return run


@pytest.mark.parametrize(
    ("text", "message"), [case[1:] for case in GRIDS], ids=[case[0] for case in GRIDS]
)
def test_bad_grid(text: str, message: str, write_grid: Write, refuse: Refuse) -> None:
    path = write_grid(text, "bad.yaml")
    line = refuse(str(path))
    assert line.startswith(f"error: {path}: ")
    assert message in line


@pytest.mark.parametrize(
    ("name", "content", "message"), [case[1:] for case in TEXTS], ids=[case[0] for case in TEXTS]
)
def test_bad_text(
    name: str, content: bytes, message: str, tmp_path: Path, write_grid: Write, refuse: Refuse
) -> None:
    (tmp_path / name).write_bytes(content)
    path = write_grid(f"base: {{data: {{corpus: {name}}}}}\n{ONE}", "bad.yaml")
    line = refuse(str(path))
    assert line.startswith(f"error: {path}: ")
    assert "data.corpus: " in line
    assert message in line


@pytest.mark.parametrize("name", ["nothing", "no/such.yaml"])
def test_unknown_grid_lists_the_known(name: str, refuse: Refuse) -> None:
    assert "quick" in refuse(name)


def test_grid_that_is_no_utf8(tmp_path: Path, refuse: Refuse) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"# caf\xe9\narms: {}\n")
    assert "UTF-8" in refuse(str(path))


@pytest.mark.parametrize("name", ["runs.yaml", "a b.yaml"])
def test_a_grid_must_name_a_folder_of_its_own(name: str, write_grid: Write, refuse: Refuse) -> None:
    assert "folder" in refuse(str(write_grid(ONE, name)))


def test_processes_that_cannot_share_a_batch(tiny: Path, refuse: Refuse) -> None:
    line = refuse(str(tiny), "--processes", "3")
    assert line.startswith(f"error: {tiny}: arm dense: ")
    assert "processes 3: a micro-batch has 4 windows" in line


@pytest.mark.parametrize(
    ("option", "given"),
    [("processes", "0"), ("checkpoint-seconds", "-1"), ("checkpoint-seconds", "nan")],
)
def test_options_that_are_none(option: str, given: str, tiny: Path, refuse: Refuse) -> None:
    assert f"options: {option.replace('-', '_')} = " in refuse(str(tiny), f"--{option}={given}")


@pytest.mark.parametrize("seeds", ["0", "-1", "1000000000000"])
def test_impossible_numbers_of_seeds(seeds: str, tiny: Path, refuse: Refuse) -> None:
    assert f"seeds = {seeds}" in refuse(str(tiny), "--seeds", seeds)
