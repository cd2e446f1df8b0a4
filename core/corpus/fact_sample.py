"""Which facts a model is asked for: a sample with enough of each frequency."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.config import DataConfig
from core.corpus.fact_counts import bucket, count_facts
from core.corpus.facts import Fact, Probe

PER_BUCKET = 50  # facts of each bucket: a share of 0.5 then has a standard error of 0.07
SAMPLE_SEED = 0  # the facts asked are the same for every run on one corpus


@dataclass(frozen=True)
class Asked:
    """A fact with what the training text holds of it."""

    fact: Fact
    frequency: int
    documents: tuple[int, ...]  # of the train split, those that state it

    @property
    def bucket(self) -> str:
        return bucket(self.frequency)


def choose(probe: Probe, data: DataConfig, cache: Path) -> list[Asked]:
    """At most PER_BUCKET facts of each bucket, the same for every run on one corpus.

    Facts whose name is a common word too are left out: their frequency is not that of the fact.
    """
    counts = count_facts(probe, data, cache)
    everything = [
        Asked(fact, frequency, tuple(documents))
        for fact, frequency, documents, common in zip(
            probe.facts, counts.frequency(probe), counts.documents, counts.common(), strict=True
        )
        if not common
    ]
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(everything))
    taken: dict[str, list[int]] = {}
    for index in order.tolist():
        same = taken.setdefault(everything[index].bucket, [])
        if len(same) < PER_BUCKET:
            same.append(index)
    return [everything[index] for index in sorted(i for same in taken.values() for i in same)]
