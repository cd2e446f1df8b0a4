"""Choices of experts to places: few sizes of products, nothing lost."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from core.memory.moe import GROUP, _places

EXPERTS = 5


@given(st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=3 * GROUP))
def test_each_choice_has_a_place_of_its_expert(choices: list[int]) -> None:
    chosen = torch.tensor(choices)
    order, place, sizes = _places(chosen, EXPERTS)
    assert sorted(order.tolist()) == list(range(len(choices)))
    assert len(set(place.tolist())) == len(choices)
    expert = torch.repeat_interleave(torch.arange(EXPERTS), torch.tensor(sizes))
    assert torch.equal(expert[place], chosen[order])
    counts = [choices.count(e) for e in range(EXPERTS)]
    assert sizes == [-(-count // GROUP) * GROUP for count in counts]
