"""The whole way from files to windows, on a corpus made here."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.config import DataConfig
from core.corpus.prepare import prepare_windows
from core.errors import InputError
from core.identity import windows_fingerprint

WORDS = ["the", "of", "stone", "river", "walks", "under", "old", "green", "seven", "sings", "far"]


def corpus(folder: Path, documents: int = 300) -> Path:
    """Random texts; every tenth is a near-copy of the one before it."""
    draw = random.Random(0)
    rows: list[dict[str, str]] = []
    for i in range(documents):
        words = [draw.choice(WORDS) + str(draw.randrange(9)) for _ in range(draw.randint(20, 90))]
        if i % 10 == 9:
            words = [*rows[-1]["text"].split(), "copied"]
        rows.append({"title": f"Title {i}", "text": " ".join(words)})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(path: Path, **values: object) -> DataConfig:
    given = {"vocab_size": 300, "seq_len": 32, "min_tokens": 8, "validation": 0.1, "test": 0.1}
    return DataConfig.model_validate({"corpus": str(path), **given, **values})


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_windows_of_a_small_corpus(tmp_path: Path) -> None:
    data = config(corpus(tmp_path / "text"))
    store = prepare_windows(data, tmp_path / "cache")
    meta = store.meta
    assert (meta["documents"], meta["groups"], meta["duplicates"]) == (300, 270, 60)
    assert meta["sources"][0]["name"] == "corpus.jsonl" and meta["sources"][0]["documents"] == 300
    assert meta["vocabulary"] == store.tokenizer.get_vocab_size() == 300
    titles = []
    for name, counts in meta["splits"].items():
        windows = store.split(name)
        assert len(windows) == counts["windows"] > 0
        assert len(windows.tokens) - len(windows) == counts["tokens"]
        assert windows.length_n.max() <= 33 and windows.length_n.min() > 8
        assert len(list(windows.key_texts(0.5))) == len(windows)
        titles.append({int(title.split()[1]) for title in windows.titles})
    assert sum(map(len, titles)) == 300
    for i in range(9, 300, 10):  # near-copies stand in one split
        assert any({i - 1, i} <= split for split in titles)


def test_bytes_of_tokens_are_bytes_of_text(tmp_path: Path) -> None:
    path = corpus(tmp_path / "text")
    store = prepare_windows(config(path, min_tokens=4), tmp_path / "cache")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    expected = sum(len(f"{row['title']}\n{row['text']}".encode()) for row in rows)
    splits = [store.split(name) for name in ("train", "validation", "test")]
    assert all(c["dropped_windows"] == 0 for c in store.meta["splits"].values())
    assert sum(store.token_bytes_v[split.tokens].sum() for split in splits) == expected


def test_tokenizer_is_fitted_on_train_alone(tmp_path: Path) -> None:
    """Each document repeats a word of its own: a token exactly if the document trains."""
    path = corpus(tmp_path / "text")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    letters = str.maketrans("0123456789", "abcdefghij")
    own = [f"q{i:03}".translate(letters) for i in range(len(rows))]
    for row, word in zip(rows, own, strict=True):
        row["text"] += f" {word}" * 3
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = prepare_windows(config(path, vocab_size=60_000), tmp_path / "cache")
    vocabulary = store.tokenizer.get_vocab()
    training = set(store.split("train").titles)
    assert 0 < len(training) < len(rows)
    for row, word in zip(rows, own, strict=True):
        assert (f"Ġ{word}" in vocabulary) == (row["title"] in training)


def test_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = config(corpus(tmp_path / "text"))
    first = prepare_windows(data, tmp_path / "cache")
    before = files(first.folder)
    monkeypatch.setattr("core.corpus.prepare._build", None)
    assert prepare_windows(data, tmp_path / "cache").folder == first.folder
    assert files(first.folder) == before


def test_the_same_text_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    one = prepare_windows(config(corpus(tmp_path / "a")), tmp_path / "cache_a")
    two = prepare_windows(config(corpus(tmp_path / "b")), tmp_path / "cache_b")
    assert one.folder.name == two.folder.name
    assert files(one.folder) == files(two.folder)


def test_a_build_cut_short_does_not_count(tmp_path: Path) -> None:
    data = config(corpus(tmp_path / "text"))
    partial = tmp_path / "cache" / f".{windows_fingerprint(data)}.partial"
    (partial / "train").mkdir(parents=True)
    (partial / "train" / "tokens.npy").write_bytes(b"half")
    store = prepare_windows(data, tmp_path / "cache")
    assert len(store.split("train")) and not partial.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    data = config(corpus(tmp_path / "text"))
    program = (
        "import sys; from pathlib import Path; from core.config import DataConfig; "
        "from core.corpus.prepare import prepare_windows; "
        "store = prepare_windows(DataConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2])); "
        "print(store.split('train').tokens.sum())"
    )
    command = [sys.executable, "-c", program, data.model_dump_json(), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sums[0] == sums[1] != ""
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [
        windows_fingerprint(data)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "no text"),
        ('{"text": "short"}', "no document of 20 characters"),
        ('{"text": "one document of some length, and no other"}', "too small"),
        ("", "no document of 20 characters"),
    ],
)
def test_too_little_text_is_refused_and_leaves_nothing(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        prepare_windows(config(path), tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_windows_that_are_all_too_short_are_refused(tmp_path: Path) -> None:
    data = config(corpus(tmp_path / "text"), seq_len=4000, min_tokens=4000)
    with pytest.raises(InputError, match=r"no window of data\.min_tokens = 4000"):
        prepare_windows(data, tmp_path / "cache")


def test_a_vocabulary_larger_than_the_text_is_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = prepare_windows(
        config(corpus(tmp_path / "text"), vocab_size=60_000), tmp_path / "cache"
    )
    assert 300 < store.meta["vocabulary"] == len(store.token_bytes_v) < 60_000
    assert "60000" in caplog.text
    assert int(np.max(store.split("train").tokens)) < store.meta["vocabulary"]
