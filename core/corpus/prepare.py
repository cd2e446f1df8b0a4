"""From `data` in a config to windows on disk, made once and found again by their fingerprint."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.config import DataConfig
from core.corpus.batches import batched
from core.corpus.clean import SHORTEST, clean_documents
from core.corpus.duplicates import group_near_duplicates
from core.corpus.progress import follow
from core.corpus.sources import Source, describe_sources, open_sources
from core.corpus.split import SPLITS, content_hash, split_groups
from core.corpus.tokenizer import load_tokenizer, token_bytes, train_tokenizer
from core.corpus.windows import SplitWindows, SplitWriter, lm_text
from core.errors import InputError
from core.identity import windows_fingerprint
from core.writing import whole_folder

_BATCH = 1_000  # documents encoded at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WindowStore:
    """A corpus cut into windows, as `prepare_windows` left it in `folder`."""

    folder: Path

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder / "tokenizer.json")

    @cached_property
    def token_bytes_v(self) -> NDArray[np.int32]:
        """UTF-8 bytes that each token stands for; 0 for end-of-text."""
        return token_bytes(self.tokenizer)

    @cached_property
    def meta(self) -> dict[str, Any]:
        """Sources with licences, and counts of documents, groups, windows and tokens."""
        meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        return meta

    def split(self, name: str) -> SplitWindows:
        """The windows of "train", "validation" or "test"."""
        return SplitWindows.open(self.folder / name, self.tokenizer)


def prepare_windows(data: DataConfig, cache: Path) -> WindowStore:
    """The windows that `data` describes, from `cache` or made there.

    A process that finds another one at work waits for it. A build that is cut short leaves nothing
    that counts as finished. Raises InputError for a corpus that cannot be read or is too small.
    """
    folder = cache / windows_fingerprint(data)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                _build(data, cache, folder)
    return WindowStore(folder)


def _build(data: DataConfig, cache: Path, folder: Path) -> None:
    with whole_folder(folder) as partial:
        meta = _fill(data, cache, partial)
        (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _fill(data: DataConfig, cache: Path, folder: Path) -> dict[str, Any]:
    spool = _Spool(folder / "documents.jsonl")
    sources = open_sources(data.corpus)
    source_n, content_n = spool.write(sources, cache)
    group_n = _group(spool, data.duplicate_jaccard, folder)
    split_n = split_groups(group_n, content_n, data.validation, data.test, data.split_seed)
    tokenizer = _train(spool, split_n, data.vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    splits = _cut(spool, split_n, tokenizer, data, folder)
    spool.path.unlink()
    groups, members = np.unique(group_n, return_counts=True)
    return {
        "sources": [
            {**described, "documents": int((source_n == index).sum())}
            for index, described in enumerate(describe_sources(data.corpus))
        ],
        "documents": len(group_n),
        "groups": len(groups),
        "duplicates": int(members[members > 1].sum()),  # documents that share a group
        "vocabulary": tokenizer.get_vocab_size(),
        "splits": splits,
    }


class _Spool:
    """Cleaned documents on disk, read several times: more than fit in memory may pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = 0

    def write(
        self, sources: list[Source], cache: Path
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Cleans and keeps all documents. Returns each one's source index and content hash: [n]."""
        origin, content = bytearray(), []
        with self.path.open("w", encoding="utf-8") as file:
            for index, source in enumerate(sources):
                documents = clean_documents(source.documents(cache))
                for document in follow(documents, f"reading {source.name}"):
                    file.write(json.dumps([document.title, document.text, index]) + "\n")
                    origin.append(index)
                    content.append(content_hash(document.title, document.text))
        self.documents = len(content)
        if not content:
            names = ", ".join(source.name for source in sources)
            raise InputError(
                f"{names}: no document of {SHORTEST} characters or more; give more text"
            )
        return np.frombuffer(bytes(origin), np.uint8), np.array(content, np.int64)

    def read(self, what: str) -> Iterator[tuple[str, str, int]]:
        """(title, text, index of source) in the order of writing."""
        with self.path.open(encoding="utf-8") as lines:
            for line in follow(lines, what, self.documents):
                title, text, source = json.loads(line)
                yield title, text, source


def _group(spool: _Spool, jaccard: float, folder: Path) -> NDArray[np.int64]:
    work = folder / "shingles"
    work.mkdir()
    texts = (text for _, text, _ in spool.read("grouping near-duplicates"))
    group_n = group_near_duplicates(texts, jaccard, work)
    shutil.rmtree(work)
    return group_n


def _train(spool: _Spool, split_n: NDArray[np.uint8], vocab_size: int) -> Tokenizer:
    documents = compress(spool.read("training the tokenizer"), (split_n == 0).tolist())
    tokenizer = train_tokenizer((lm_text(title, text) for title, text, _ in documents), vocab_size)
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        log.warning(
            "the training text yields %d tokens, fewer than data.vocab_size %d", size, vocab_size
        )
    return tokenizer


def _cut(
    spool: _Spool, split_n: NDArray[np.uint8], tokenizer: Tokenizer, data: DataConfig, folder: Path
) -> dict[str, dict[str, int]]:
    with ExitStack() as files:
        writers = [
            files.enter_context(
                SplitWriter(folder / name, tokenizer, data.seq_len, data.min_tokens)
            )
            for name in SPLITS
        ]
        documents = zip(spool.read("cutting windows"), split_n.tolist(), strict=True)
        for batch in batched(documents, _BATCH):
            for index, writer in enumerate(writers):
                writer.append(
                    [(title, text, source) for (title, text, source), s in batch if s == index]
                )
    counts = {name: dataclasses.asdict(w.counts) for name, w in zip(SPLITS, writers, strict=True)}
    if empty := [name for name in SPLITS if not counts[name]["windows"]]:
        raise InputError(
            f"{' and '.join(empty)}: no window of data.min_tokens = {data.min_tokens} tokens; "
            "give longer documents or lower data.min_tokens"
        )
    return counts
