"""Windows against a slow cut, and key texts against the text that they came from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus.tokenizer import encode_batch, train_tokenizer
from core.corpus.windows import SplitWindows, SplitWriter, lm_text, prefix_tokens, window_lengths

DOCUMENTS = [
    ("Fox", "The quick brown fox jumps over the lazy dog. " * 4, 0),
    ("", "An untitled text of some length, with ten words in it.", 1),
    ("", "Tiny.", 1),
    ("Größe", "東京 und Ελλάδα und 🦊 " * 6, 2),
]
TOKENIZER = train_tokenizer([lm_text(title, text) for title, text, _ in DOCUMENTS], 300)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(16, 64))
def test_window_lengths_against_a_slow_cut(lengths: list[int], seq_len: int) -> None:
    length_n, document_n = window_lengths(np.array(lengths), seq_len)
    for document, length in enumerate(lengths):
        own = length_n[document_n == document].tolist()
        count = next(k for k in range(1, length + 1) if k * seq_len >= length)
        assert own == [len(part) for part in np.array_split(np.zeros(length), count)]
        assert max(own) <= seq_len and max(own) - min(own) <= 1


@given(st.integers(2, 66_000), st.floats(0.001, 0.999))
def test_prefix_leaves_a_token_to_score(length: int, prefix: float) -> None:
    (seen,) = prefix_tokens(np.array([length], np.int32), prefix)
    assert 1 <= seen <= length - 1
    assert seen == min(length - 1, max(1, int(prefix * length)))


@pytest.fixture
def written(tmp_path: Path) -> tuple[SplitWriter, SplitWindows]:
    with SplitWriter(tmp_path / "train", TOKENIZER, seq_len=16, min_tokens=8) as writer:
        writer.append(DOCUMENTS[:2])
        writer.append([])
        writer.append(DOCUMENTS[2:])
    return writer, SplitWindows.open(tmp_path / "train", TOKENIZER)


def test_files_hold_every_document_cut_in_order(written: tuple[SplitWriter, SplitWindows]) -> None:
    _, windows = written
    for index, (title, text, source) in enumerate(DOCUMENTS):
        (tokens,) = encode_batch(TOKENIZER, [lm_text(title, text)])
        expected = [*tokens.tolist(), 0]
        own = np.flatnonzero(windows.document == index)
        parts = [windows.tokens[windows.offsets[i] : windows.offsets[i + 1]].tolist() for i in own]
        assert all(part[0] == 0 and 9 <= len(part) <= 17 for part in parts)
        assert [token for part in parts for token in part[1:]] == (expected if len(own) else [])
        assert (windows.source[own] == source).all()
    assert windows.titles == ["Fox", "", "", "Größe"]
    assert [array.dtype for array in (windows.offsets, windows.document, windows.source)] == [
        np.int64,
        np.int32,
        np.uint8,
    ]
    assert (windows.length_n == np.diff(windows.offsets)).all()


def test_dropped_windows_are_counted(written: tuple[SplitWriter, SplitWindows]) -> None:
    writer, windows = written
    texts = [lm_text(title, text) for title, text, _ in DOCUMENTS]
    tokens = sum(len(ids) + 1 for ids in encode_batch(TOKENIZER, texts))
    stub = len(encode_batch(TOKENIZER, [texts[2]])[0]) + 1
    assert stub < 8 and 2 not in windows.document
    assert (writer.counts.dropped_windows, writer.counts.dropped_tokens) == (1, stub)
    assert writer.counts.tokens == tokens - stub == len(windows.tokens) - len(windows)
    assert writer.counts.windows == len(windows)
    assert writer.counts.documents == 4


def test_key_texts(written: tuple[SplitWriter, SplitWindows]) -> None:
    _, windows = written
    fox = np.flatnonzero(windows.document == 0)
    keys = list(windows.key_texts())
    assert keys == [windows.key_text(i) for i in range(len(windows))]
    first, *later = [keys[i] for i in fox]
    assert all(key.startswith("Fox\n") for key in later)
    assert first + "".join(key.removeprefix("Fox\n") for key in later) == lm_text(*DOCUMENTS[0][:2])
    untitled = np.flatnonzero(windows.document == 1)
    assert "".join(keys[i] for i in untitled) == DOCUMENTS[1][1]


def test_prefix_keys_see_the_first_tokens_only(written: tuple[SplitWriter, SplitWindows]) -> None:
    _, windows = written
    seen_n = prefix_tokens(windows.length_n, 0.5)
    for i, key in enumerate(windows.key_texts(0.5)):
        start = windows.offsets[i]
        continues = i > 0 and windows.document[i - 1] == windows.document[i]
        title = windows.titles[windows.document[i]] if continues else ""
        text = TOKENIZER.decode(windows.tokens[start : start + seen_n[i]].tolist())
        assert key == (f"{title}\n{text}" if title else text)
        assert len(text) < len(windows.key_text(i))
