"""The compiled choice and reading of slots, against the obvious way."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.memory import pkm
from core.memory.pkm import best_pairs, best_scores, read_values


def scores(heads: int, tokens: int, keys: int) -> Tensor:
    draw = torch.Generator().manual_seed(keys)
    return torch.randn(heads, 2, tokens, keys, generator=draw)


@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(1, 40),
    st.sampled_from([0.25, 2, 16, 2**20]),
    st.data(),
)
def test_the_best_of_all_pairs(
    heads: int, tokens: int, keys: int, steps: float, data: st.DataObject
) -> None:
    """Every sum of two halves is made; the compiled choice has the same sums, best first.

    Scores in few steps have equals, more of them than are chosen.
    """
    k, scores_h2ns = data.draw(st.integers(1, keys)), scores(heads, tokens, keys)
    scores_h2ns = (scores_h2ns * steps).round() / steps
    sums = (scores_h2ns[:, 0, :, :, None] + scores_h2ns[:, 1, :, None, :]).flatten(-2)
    expected = sums.topk(k, dim=-1).values
    for choose in (best_pairs, pkm._best_of_all):
        first, second = choose(scores_h2ns, k)
        assert torch.equal(sums.gather(-1, first * keys + second), expected)
        pairs = (first * keys + second).flatten(0, 1).tolist()
        assert all(len(set(pair)) == k for pair in pairs)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_choose_slots_that_there_are(poison: float) -> None:
    scores_h2ns = scores(2, 3, 5)
    scores_h2ns[:, 0] = poison
    for keys in best_pairs(scores_h2ns, 4):
        assert ((keys >= 0) & (keys < 5)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(st.integers(1, 3), st.integers(0, 4), st.integers(1, 12), st.integers(1, 20), st.data())
def test_scores_are_summed_and_have_the_gradient_of_all_products(
    dtype: torch.dtype, heads: int, tokens: int, keys: int, d: int, data: st.DataObject
) -> None:
    k, draw = data.draw(st.integers(1, keys)), torch.Generator().manual_seed(d)
    q_h2nd = torch.randn(heads, 2, tokens, d, generator=draw).to(dtype).requires_grad_()
    keys_h2sd = torch.randn(heads, 2, keys, d, generator=draw).requires_grad_()
    score_hnk, chosen_2hnk = best_scores(q_h2nd, keys_h2sd, k)
    expected, same = pkm._best_scores(q_h2nd, keys_h2sd, k)
    assert torch.equal(score_hnk, expected)
    assert torch.equal(chosen_2hnk, same)
    grad_hnk = torch.randn(heads, tokens, k, generator=draw)
    wide = [x.detach().double().requires_grad_() for x in (q_h2nd, keys_h2sd)]
    slow_h2ns = wide[0] @ wide[1].transpose(-1, -2)
    slow_hnk = sum(slow_h2ns[:, i].gather(-1, chosen_2hnk[i]) for i in (0, 1))
    tolerance = 0.01 if dtype == torch.bfloat16 else 1e-5  # that of the gradient's own format
    for ours, slow in zip(
        torch.autograd.grad(score_hnk, (q_h2nd, keys_h2sd), grad_hnk),
        torch.autograd.grad(slow_hnk, wide, grad_hnk.double()),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), slow, rtol=tolerance, atol=tolerance)


@given(st.integers(0, 5), st.integers(1, 6), st.integers(1, 9), st.integers(1, 40))
def test_reading_is_torchs_sum_of_rows(tokens: int, reads: int, slots: int, d: int) -> None:
    """Values and gradients; slots that were not read have no row in the gradient."""
    draw = torch.Generator().manual_seed(d)
    slot_nk = torch.randint(0, slots, (tokens, reads), generator=draw)
    weight_nk, values_sd = torch.randn(tokens, reads, generator=draw), torch.randn(slots, d)
    given = [x.requires_grad_() for x in (weight_nk, values_sd)]
    expected = (weight_nk[..., None] * values_sd[slot_nk]).sum(1)
    got, grad = read_values(slot_nk, weight_nk, values_sd), torch.randn(tokens, d, generator=draw)
    torch.testing.assert_close(got, expected)
    found = torch.autograd.grad(got, given, grad)
    for one, two in zip(found, torch.autograd.grad(expected, given, grad), strict=True):
        torch.testing.assert_close(one.to_dense(), two)
    assert found[1].is_coalesced()
    assert found[1].indices()[0].tolist() == slot_nk.unique().tolist()
