"""How often the train split states each fact, counted in its text; made once per corpus."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from core.config import DataConfig
from core.corpus.batches import batched
from core.corpus.facts import PhraseFinder, Probe
from core.corpus.prepare import prepare_windows
from core.corpus.progress import follow
from core.corpus.windows import SplitWindows
from core.identity import digest, windows_fingerprint
from core.writing import write_text

# Raise when counting gives other numbers for the same text.
COUNTS_VERSION = 1
COMMON = 0.1  # share of a name's occurrences in lower case above which it is a common word
_BATCH = 1_000  # documents decoded at once
# Lower ends of the buckets. Half of all facts that occur at all occur once.
_EDGES = (0, 1, 2, 4, 8, 16, 64)


@dataclass(frozen=True)
class FactCounts:
    """Of each fact of a probe, in its order: [n]."""

    mentions: list[int]  # how often the subject is named
    documents: list[list[int]]  # of the train split, those that hold subject and answer
    lower: list[int]  # how often the name stands in lower case, where case matters: march, union

    def frequency(self, probe: Probe) -> list[int]:
        """What `probe.counted` asks for."""
        if probe.counted == "mentions":
            return self.mentions
        return [len(stated) for stated in self.documents]

    def common(self) -> list[bool]:
        """Whether the subject is a common word too, so that its count is not that of the fact."""
        pairs = zip(self.lower, self.mentions, strict=True)
        return [lower > COMMON * (lower + mentions) for lower, mentions in pairs]


def count_facts(probe: Probe, data: DataConfig, cache: Path) -> FactCounts:
    """Counts in the text of the train split, from `cache` or made there.

    Names and answers are whole words. Raises InputError as `prepare_windows` does.
    """
    file = cache / "facts" / f"{_fingerprint(probe, data)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            counts = _count(probe, prepare_windows(data, cache).split("train"))
            write_text(file, json.dumps(asdict(counts)))
    return FactCounts(**json.loads(file.read_text()))


def bucket(frequency: int) -> str:
    """The range that a frequency falls in: 0, 1, 2-3, 4-7, 8-15, 16-63, 64+."""
    index = int(np.searchsorted(_EDGES, frequency, side="right")) - 1
    first = _EDGES[index]
    if index == len(_EDGES) - 1:
        return f"{first}+"
    last = _EDGES[index + 1] - 1
    return str(first) if first == last else f"{first}-{last}"


def lowest(bucket: str) -> int:
    """The least frequency of a bucket, by which buckets are put in order."""
    return int(re.split(r"[-+]", bucket)[0])


def _fingerprint(probe: Probe, data: DataConfig) -> str:
    return digest(
        {
            "windows": windows_fingerprint(data),
            "probe": asdict(probe),
            "version": COUNTS_VERSION,
        }
    )


def _count(probe: Probe, train: SplitWindows) -> FactCounts:
    facts_of: dict[str, list[int]] = {}
    lower_of: dict[str, list[int]] = {}
    for index, fact in enumerate(probe.facts):
        for name in fact.names:
            facts_of.setdefault(name, []).append(index)
            if not probe.fold_case and name != name.lower():
                lower_of.setdefault(name.lower(), []).append(index)
    finder = PhraseFinder((*facts_of, *lower_of, *probe.answers), probe.fold_case)
    n = len(probe.facts)
    counts = FactCounts([0] * n, [[] for _ in range(n)], [0] * n)
    for document, text in follow(document_texts(train), f"counting {probe.name}"):
        found = finder.find(text)
        held = set(found)
        for index in (i for name in found for i in facts_of.get(name, ())):
            counts.mentions[index] += 1
        for index in sorted({i for name in held for i in facts_of.get(name, ())}):
            if probe.facts[index].answer in held:
                counts.documents[index].append(document)
        for index in (i for name in found for i in lower_of.get(name, ())):
            counts.lower[index] += 1
    return counts


def document_texts(split: SplitWindows) -> Iterator[tuple[int, str]]:
    """(document, text) of every document that has windows, its title first."""
    document_n = np.asarray(split.document)
    first_d = np.flatnonzero(np.r_[True, document_n[1:] != document_n[:-1]])
    ends_d = np.r_[split.offsets[first_d[1:]], split.offsets[-1]]
    spans = zip(document_n[first_d], split.offsets[first_d], ends_d, strict=True)
    for batch in batched(spans, _BATCH):
        texts = split.tokenizer.decode_batch([split.tokens[a:b].tolist() for _, a, b in batch])
        yield from (
            (int(document), text) for (document, _, _), text in zip(batch, texts, strict=True)
        )
