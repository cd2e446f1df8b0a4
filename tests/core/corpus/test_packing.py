"""Every window stands once, whole, among windows of its own leaf."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus.packing import pack_rows
from core.dataset import PADDING, Rows


def windows(length_n: np.ndarray, leaves: int, seed: int) -> dict[str, Any]:
    """Windows whose first two tokens number them, so that each can be found again."""
    draw = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(length_n)]).astype(np.int64)
    tokens = draw.integers(0, 65_536, offsets[-1]).astype(np.uint16)
    tokens[offsets[:-1]], tokens[offsets[:-1] + 1] = np.divmod(np.arange(len(length_n)), 65_536)
    leaf_n = draw.integers(0, leaves, len(length_n))
    path_nl = np.stack([leaf_n // 2, leaf_n], axis=1).astype(np.int32)
    return {"lengths": length_n, "path_nl": path_nl, "offsets": offsets, "tokens": tokens}


def check(rows: Rows, given_: dict[str, Any], seq_len: int) -> None:
    seen = []
    assert rows.tokens_nt.shape == rows.segments_nt.shape == (len(rows.path_nl), seq_len + 1)
    assert (rows.tokens_nt.dtype, rows.segments_nt.dtype) == (np.uint16, np.uint8)
    for tokens_t, segments_t, path_l in zip(
        rows.tokens_nt, rows.segments_nt, rows.path_nl, strict=True
    ):
        used = segments_t != PADDING
        assert used[0] and (np.diff(used.astype(int)) <= 0).all()  # padding only at the end
        assert (tokens_t[~used] == 0).all()
        assert set(np.diff(segments_t[used].astype(int))) <= {0, 1} and segments_t[0] == 0
        for segment in range(segments_t[used].max() + 1):
            window_t = tokens_t[segments_t == segment]
            window = int(window_t[0]) * 65_536 + int(window_t[1])
            start, end = given_["offsets"][window : window + 2]
            assert (window_t == given_["tokens"][start:end]).all()
            assert (path_l == given_["path_nl"][window]).all()
            seen.append(window)
    assert sorted(seen) == list(range(len(given_["lengths"])))


@given(
    st.lists(st.integers(2, 33), min_size=1, max_size=120),
    st.integers(1, 5),
    st.integers(0, 3),
)
def test_every_window_once_whole_in_a_row_of_its_leaf(
    lengths: list[int], leaves: int, seed: int
) -> None:
    given_ = windows(np.array(lengths), leaves, seed)
    rows = pack_rows(**given_, seq_len=32, seed=seed)
    check(rows, given_, 32)


def test_more_than_255_windows_need_another_row() -> None:
    given_ = windows(np.full(600, 2), 1, 0)
    rows = pack_rows(**given_, seq_len=2_000, seed=0)
    check(rows, given_, 2_000)
    assert len(rows.path_nl) == 3


def test_rows_are_well_filled_and_the_seed_decides_who_shares_one() -> None:
    draw = np.random.default_rng(0)
    given_ = windows(np.minimum(129, draw.geometric(1 / 60, 20_000) + 16), 16, 0)
    rows = pack_rows(**given_, seq_len=128, seed=0)
    assert (rows.segments_nt != PADDING).mean() > 0.9
    again = pack_rows(**given_, seq_len=128, seed=0)
    other = pack_rows(**given_, seq_len=128, seed=1)
    assert (again.tokens_nt == rows.tokens_nt).all()
    assert (
        other.tokens_nt.shape != rows.tokens_nt.shape or (other.tokens_nt != rows.tokens_nt).any()
    )


def test_a_window_that_fits_no_row_is_refused() -> None:
    with pytest.raises(ValueError, match="fits no row"):
        pack_rows(**windows(np.array([5, 10]), 1, 0), seq_len=8, seed=0)
