"""Documents to windows of tokens, stored flat on disk; and the key texts that retrieval sees."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.corpus.arrays import ArrayWriter, open_array
from core.corpus.tokenizer import END_OF_TEXT_ID, encode_batch

_BATCH = 1_000  # windows decoded at once
_END = np.uint16(END_OF_TEXT_ID)

Integers = NDArray[np.int64]


def lm_text(title: str, text: str) -> str:
    """What the model is trained on: the title on its own line, where there is one."""
    return f"{title}\n{text}" if title else text


def window_lengths(length_d: NDArray[np.int64], seq_len: int) -> tuple[Integers, Integers]:
    """Lengths [n] and documents [n] of the windows that documents of `length_d` tokens make.

    ceil(length / seq_len) windows a document, of nearly equal length, longer ones first.
    """
    pieces_d = -(-length_d // seq_len)
    document_n = np.repeat(np.arange(len(length_d)), pieces_d)
    place_n = np.arange(len(document_n)) - np.repeat(np.cumsum(pieces_d) - pieces_d, pieces_d)
    shortest_d, longer_d = np.divmod(length_d, pieces_d)
    return shortest_d[document_n] + (place_n < longer_d[document_n]), document_n


def prefix_tokens(length_n: NDArray[np.int32], prefix: float) -> NDArray[np.int32]:
    """Leading tokens (end-of-text included) that the prefix key sees: [n], in 1 .. length - 1.

    At least one token of each window stays to be scored.
    """
    seen = np.floor(np.asarray(length_n) * prefix).astype(np.int32)
    return np.clip(seen, 1, np.asarray(length_n, np.int32) - 1)


@dataclass
class Counts:
    """What a split holds."""

    documents: int = 0
    windows: int = 0
    tokens: int = 0  # to be predicted: the leading end-of-text of a window is not
    dropped_windows: int = 0
    dropped_tokens: int = 0


class SplitWriter:
    """Cuts documents into windows and appends them to the files of one split.

    A document's tokens are those of its text and a closing end-of-text. Each window is led by one
    more, so it holds at most seq_len + 1; those with fewer than `min_tokens` behind it are dropped.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, seq_len: int, min_tokens: int) -> None:
        folder.mkdir(parents=True)
        self._tokenizer, self._seq_len, self._min_tokens = tokenizer, seq_len, min_tokens
        self.counts = Counts()
        self._end = 0  # of the flat tokens
        with ExitStack() as files:
            self._tokens = files.enter_context(ArrayWriter(folder / "tokens.npy", np.uint16))
            self._offsets = files.enter_context(ArrayWriter(folder / "offsets.npy", np.int64))
            self._document = files.enter_context(ArrayWriter(folder / "document.npy", np.int32))
            self._source = files.enter_context(ArrayWriter(folder / "source.npy", np.uint8))
            self._titles = files.enter_context(
                (folder / "titles.jsonl").open("w", encoding="utf-8")
            )
            self._files = files.pop_all()
        self._offsets.append([0])

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.close()

    def append(self, documents: list[tuple[str, str, int]]) -> None:
        """Adds documents (title, text, index of the source) in their order."""
        if not documents:
            return
        texts = [lm_text(title, text) for title, text, _ in documents]
        encoded = [np.append(ids, _END) for ids in encode_batch(self._tokenizer, texts)]
        length_n, document_n = window_lengths(
            np.array([len(ids) for ids in encoded]), self._seq_len
        )
        kept_n = length_n >= self._min_tokens
        self._append_windows(np.concatenate(encoded)[np.repeat(kept_n, length_n)], length_n[kept_n])
        self._document.append(self.counts.documents + document_n[kept_n])
        self._source.append(np.array([source for *_, source in documents])[document_n[kept_n]])
        self._titles.writelines(json.dumps(title) + "\n" for title, *_ in documents)
        self.counts.documents += len(documents)
        self.counts.dropped_windows += int((~kept_n).sum())
        self.counts.dropped_tokens += int(length_n[~kept_n].sum())

    def _append_windows(self, flat: NDArray[np.uint16], length_n: Integers) -> None:
        self._tokens.append(np.insert(flat, np.cumsum(length_n) - length_n, END_OF_TEXT_ID))
        offset_n = self._end + np.cumsum(length_n + 1)
        self._offsets.append(offset_n)
        self._end = int(offset_n[-1]) if len(offset_n) else self._end
        self.counts.windows += len(length_n)
        self.counts.tokens += len(flat)


@dataclass(frozen=True)
class SplitWindows:
    """The windows of one split, mapped from disk.

    tokens   uint16 [sum of lengths]  flat; window i is tokens[offsets[i] : offsets[i + 1]]
    offsets  int64  [n + 1]
    document int32  [n]               index of the document within the split
    source   uint8  [n]               index into the store's sources
    """

    folder: Path
    tokenizer: Tokenizer
    tokens: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    document: NDArray[np.int32]
    source: NDArray[np.uint8]

    @classmethod
    def open(cls, folder: Path, tokenizer: Tokenizer) -> "SplitWindows":
        names = ("tokens", "offsets", "document", "source")
        return cls(folder, tokenizer, *(open_array(folder / f"{name}.npy") for name in names))

    def __len__(self) -> int:
        return len(self.document)

    @property
    def length_n(self) -> NDArray[np.int32]:
        """Tokens of each window, the leading end-of-text included: [n]."""
        return np.diff(self.offsets).astype(np.int32)

    @cached_property
    def titles(self) -> list[str]:
        """Title of each document."""
        with (self.folder / "titles.jsonl").open() as lines:
            return [json.loads(line) for line in lines]

    def key_texts(self, prefix: float | None = None) -> Iterator[str]:
        """What retrieval sees of each window, in order: all of it, or its first `prefix_tokens`."""
        for start in range(0, len(self), _BATCH):
            yield from self._key_texts(np.arange(start, min(start + _BATCH, len(self))), prefix)

    def key_text(self, window: int, prefix: float | None = None) -> str:
        """What retrieval sees of one window: a later window of a document is led by its title."""
        return self._key_texts(np.array([window]), prefix)[0]

    def _key_texts(self, window_n: Integers, prefix: float | None) -> list[str]:
        start_n, length_n = (
            self.offsets[window_n],
            self.offsets[window_n + 1] - self.offsets[window_n],
        )
        seen_n = length_n if prefix is None else prefix_tokens(length_n, prefix)
        ids = [self.tokens[a : a + n].tolist() for a, n in zip(start_n, seen_n, strict=True)]
        texts = self.tokenizer.decode_batch(ids)
        return [self._lead(int(i)) + text for i, text in zip(window_n, texts, strict=True)]

    def _lead(self, window: int) -> str:
        document = self.document[window]
        continues = window > 0 and self.document[window - 1] == document
        title = self.titles[document] if continues else ""
        return f"{title}\n" if title else ""
