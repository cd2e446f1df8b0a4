"""Groups against brute force: all pairs, Python sets, breadth-first search."""

import random
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from core.corpus.duplicates import SIGNATURE, group_near_duplicates, rows_per_band


def reference_shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower()) or [text]
    return {tuple(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}


def reference_jaccard(a: str, b: str) -> float:
    x, y = reference_shingles(a), reference_shingles(b)
    return len(x & y) / len(x | y)


def reference_groups(texts: list[str], jaccard: float) -> list[int]:
    group = list(range(len(texts)))
    for i, j in combinations(range(len(texts)), 2):
        if reference_jaccard(texts[i], texts[j]) >= jaccard:
            low, high = sorted((group[i], group[j]))
            group = [low if g == high else g for g in group]
    return group


def mutated_texts(seed: int, count: int, lengths: tuple[int, int]) -> list[str]:
    """Random texts, most of them copies of an earlier one with a few words changed or cut."""
    draw = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(60)]
    texts = [[draw.choice(vocabulary) for _ in range(draw.randint(*lengths))]]
    while len(texts) < count:
        words = list(draw.choice(texts))
        for _ in range(draw.randint(0, max(1, len(words) // 4))):
            words[draw.randrange(len(words))] = draw.choice(vocabulary)
        if draw.random() < 0.3:
            words = words[: max(3, len(words) - draw.randint(0, 3))]
        texts.append(words)
    return [" ".join(words) for words in texts]


@pytest.mark.parametrize("lengths", [(5, 20), (40, 120)])
@pytest.mark.parametrize("jaccard", [0.5, 0.7, 0.9, 1.0])
def test_groups_equal_brute_force(tmp_path: Path, lengths: tuple[int, int], jaccard: float) -> None:
    texts = mutated_texts(seed=3, count=100, lengths=lengths)
    groups = group_near_duplicates(texts, jaccard, tmp_path)
    expected = reference_groups(texts, jaccard)
    assert 1 < len(set(expected)) < len(texts)
    assert groups.tolist() == expected


def test_one_changed_word_in_a_short_definition_is_a_near_duplicate(tmp_path: Path) -> None:
    texts = [
        "a large northern deer with broad flat antlers, found in cold forests of Europe",
        "A large northern deer, with broad flat antlers; found in cold forests of America.",
        "a small southern bird with long red feathers, found in warm islands of Asia",
        "!!! ??? ...",
        "!!! ??? ...",
    ]
    assert group_near_duplicates(texts, 0.7, tmp_path).tolist() == [0, 0, 2, 3, 3]


def test_groups_do_not_hang_on_the_order_of_reading(tmp_path: Path) -> None:
    texts = mutated_texts(seed=5, count=200, lengths=(5, 30))
    order = np.random.default_rng(0).permutation(len(texts))
    groups = group_near_duplicates(texts, 0.7, tmp_path)
    shuffled = group_near_duplicates([texts[i] for i in order], 0.7, tmp_path)
    together = groups[:, None] == groups[None, :]
    together_shuffled = shuffled[:, None] == shuffled[None, :]
    assert (together[np.ix_(order, order)] == together_shuffled).all()


def test_a_pair_at_the_threshold_is_found_almost_surely(tmp_path: Path) -> None:
    """1,000 pairs just above the threshold, of which 99.9 % are to be found."""
    draw = random.Random(0)
    texts = []
    for _ in range(1_000):
        words = [f"v{draw.randrange(10**6)}" for _ in range(30)]
        texts += [" ".join(words), " ".join(words[:22])]
    # 22 + 21 + 20 of 30 + 29 + 28 shingles are shared
    similar = (22 + 21 + 20) / (30 + 29 + 28)
    assert reference_jaccard(*texts[:2]) == pytest.approx(similar)
    groups = group_near_duplicates(texts, similar - 1e-9, tmp_path)
    assert (groups[::2] == groups[1::2]).mean() >= 0.995
    assert len(set(groups)) >= 1_000


@pytest.mark.parametrize(("jaccard", "rows"), [(0.1, 1), (0.7, 4), (1.0, 8)])
def test_rows_per_band(jaccard: float, rows: int) -> None:
    assert rows_per_band(jaccard) == rows
    missed = (1 - jaccard**rows) ** (SIGNATURE // rows)
    assert missed <= 1e-3
