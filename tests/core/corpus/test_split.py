"""Splits keep groups whole, follow their shares, and hang on nothing but content and seed."""

import numpy as np
import pytest

from core.corpus.split import content_hash, split_groups
from core.errors import InputError


def corpus(documents: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    group_n = draw.integers(0, documents // 2, documents)
    content_n = np.array([content_hash("", str(i)) for i in range(documents)])
    return group_n, content_n


def test_groups_stay_whole_and_shares_are_met() -> None:
    group_n, content_n = corpus(40_000)
    split_n = split_groups(group_n, content_n, 0.1, 0.05, seed=0)
    _, first, group_of_n = np.unique(group_n, return_index=True, return_inverse=True)
    assert (split_n == split_n[first][group_of_n]).all()
    shares = np.bincount(split_n[first]) / len(first)
    # five standard errors of a share of about 17,000 groups
    assert np.abs(shares - [0.85, 0.1, 0.05]).max() < 5 * np.sqrt(0.1 * 0.9 / len(first))


def test_order_of_reading_and_names_of_groups_do_not_matter() -> None:
    group_n, content_n = corpus(2_000)
    order = np.random.default_rng(1).permutation(len(group_n))
    split_n = split_groups(group_n, content_n, 0.1, 0.1, seed=0)
    again = split_groups(7 * group_n[order] + 3, content_n[order], 0.1, 0.1, seed=0)
    assert (split_n[order] == again).all()


def test_more_text_moves_no_group_and_another_seed_does() -> None:
    group_n, content_n = corpus(2_000)
    part = group_n < 500
    whole = split_groups(group_n, content_n, 0.1, 0.1, seed=0)
    assert (split_groups(group_n[part], content_n[part], 0.1, 0.1, seed=0) == whole[part]).all()
    assert (split_groups(group_n, content_n, 0.1, 0.1, seed=1) != whole).any()


@pytest.mark.parametrize("documents", [1, 2])
def test_too_small_a_corpus_is_refused(documents: int) -> None:
    group_n, content_n = np.arange(documents), np.arange(documents)
    with pytest.raises(InputError, match="too small"):
        split_groups(group_n, content_n, 0.05, 0.05, seed=0)
