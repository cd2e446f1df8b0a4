"""Types that live in blocks: a no-op at first, a document's own, and true gradients."""

from collections.abc import Callable, Sequence
from pkgutil import resolve_name

import pytest
import torch
from torch import Tensor

from core.anchor import Anchor
from core.config import RunConfig
from core.memory.bank import Bank, Fetch
from core.memory_types import BLOCK_TYPES
from core.model import Model
from tests.core.memory.blocks import ANCHOR, HEAD_DIM, HEADS, LAYERS, PATHS, D, random_bank

TOKENS = torch.randint(0, 9, (len(PATHS), 5), generator=torch.Generator().manual_seed(2))
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1]] * len(PATHS), dtype=torch.uint8)


def make_anchor() -> Anchor:
    return Anchor(ANCHOR, vocab_size=9, seed=3).double()


def hidden(anchor: Anchor, bank: Bank, fetches: Sequence[Fetch], rows: slice) -> Tensor:
    memory = bank.attach(fetches, ANCHOR.layers, torch.float64)
    return anchor(TOKENS[rows], SEGMENTS[rows], memory, torch.float64)


@pytest.mark.parametrize("name", BLOCK_TYPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_op_at_the_start_to_the_bit(
    make_config: Callable[..., RunConfig], name: str, precision: str
) -> None:
    bare = Model(make_config(), "cpu", precision)
    tokens = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros(3, 16, dtype=torch.uint8)
    expected = bare.hidden(tokens, segments, [])
    for memory in ({"type": name}, {"type": "generic", "block": name}):
        full = Model(make_config(memory={**memory, "widths": [3, 2]}), "cpu", precision)
        fetches = full.fetch(torch.tensor([[0, 1], [1, 3], [0, 0]]))
        assert fetches
        assert torch.equal(expected, full.hidden(tokens, segments, fetches))


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_a_mixed_batch_gives_each_document_its_own(name: str) -> None:
    anchor, bank = make_anchor(), random_bank(name)
    together = hidden(anchor, bank, bank.fetch(PATHS), slice(None))
    bare = anchor(TOKENS, SEGMENTS, dtype=torch.float64)
    for b in range(len(PATHS)):
        rows = slice(b, b + 1)
        alone = hidden(anchor, bank, bank.fetch(PATHS[rows]), rows)
        torch.testing.assert_close(alone, together[rows])
        assert (alone - bare[rows]).abs().max() > 1e-3


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_gradients_by_finite_differences(name: str) -> None:
    """Through the whole anchor, so every site counts."""
    anchor, bank = make_anchor(), random_bank(name)
    weight = torch.randn(
        len(PATHS), 5, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )

    def value(fetches: Sequence[Fetch]) -> Tensor:
        return (hidden(anchor, bank, fetches, slice(None)) * weight).sum()

    fetches = bank.fetch(PATHS)
    value(fetches).backward()
    for level, fetch in enumerate(fetches):
        grad = fetch.rows.grad
        assert grad is not None
        assert grad.abs().sum() > 0
        for index in range(0, fetch.rows.numel(), 23):
            slopes = []
            for step in (1e-6, -1e-6):
                moved = bank.fetch(PATHS)
                moved[level].rows.data.view(-1)[index] += step
                slopes.append(value(moved).item())
            slope = (slopes[0] - slopes[1]) / 2e-6
            assert slope == pytest.approx(grad.view(-1)[index].item(), rel=1e-5, abs=1e-6)


def test_layers_without_memory_are_left_alone() -> None:
    bank = random_bank("kv")
    types = [type(a).__name__ for a in bank.attach(bank.fetch(PATHS), 3, torch.float64)]
    assert types == ["AttachedKV", "Attached", "AttachedKV"]


def levels_of(bank: Bank, document: int, site: int) -> list[Tensor]:
    return [
        table.rows[PATHS[document, level]].view(table.shape)[site]
        for level, table in bank.tables.items()
    ]


def test_kv_equals_a_loop_over_heads_and_tokens() -> None:
    bank = random_bank("kv")
    generator = torch.Generator().manual_seed(5)
    q_bhtk, mixed_bhtk = (
        torch.randn(len(PATHS), HEADS, 5, HEAD_DIM, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    attached = bank.attach(bank.fetch(PATHS), 3, torch.float64)
    for site, layer in enumerate(LAYERS):
        got = attached[layer].mix(q_bhtk, mixed_bhtk)
        for b in range(len(PATHS)):
            keys_rw, values_rw = torch.cat(levels_of(bank, b, site), dim=1)
            for h in range(HEADS):
                part = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
                for t in range(5):
                    scores_r = torch.stack([key @ q_bhtk[b, h, t] for key in keys_rw[:, part]])
                    weight_r = (scores_r / HEAD_DIM**0.5).exp()
                    read_k = (weight_r / weight_r.sum()) @ values_rw[:, part]
                    torch.testing.assert_close(got[b, h, t], mixed_bhtk[b, h, t] + read_k)


W = HEADS * HEAD_DIM


@pytest.mark.parametrize("name", ["lora-qk", "lora-vo", "lora-ffn"])
def test_lora_equals_an_anchor_with_patched_matrices(name: str) -> None:
    """W + 2 B A written into a copy of the anchor, for each document on its own."""
    bank = random_bank(name)
    together = hidden(make_anchor(), bank, bank.fetch(PATHS), slice(None))
    for b in range(len(PATHS)):
        patched = make_anchor()
        for site, layer_index in enumerate(LAYERS):
            layer = patched.layers[layer_index]
            block_rs = torch.cat(levels_of(bank, b, site))
            q, k, v = layer.attention.qkv.weight.data.split(W)
            gate, up = layer.ffn.gate_up.weight.data.split(ANCHOR.ffn)
            matrices = {
                "lora-qk": [q, k],
                "lora-vo": [v, layer.attention.out.weight.data],
                "lora-ffn": [gate, up, layer.ffn.down.weight.data],
            }[name]
            start = 0
            for matrix_oi in matrices:
                d_out, d_in = matrix_oi.shape
                a_ri = block_rs[:, start : start + d_in]
                b_ro = block_rs[:, start + d_in : start + d_in + d_out]
                matrix_oi += 2 * b_ro.T @ a_ri
                start += d_in + d_out
            assert start == block_rs.shape[1]
        alone = patched(TOKENS[b : b + 1], SEGMENTS[b : b + 1], dtype=torch.float64)
        torch.testing.assert_close(alone, together[b : b + 1])


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_half_of_a_block_starts_at_zero_and_half_is_drawn(name: str) -> None:
    """What opens the memory is at zero; what it opens on is not, or no gradient would flow."""
    memory = resolve_name(BLOCK_TYPES[name].implementation)(LAYERS, ANCHOR)
    rows = Bank(memory, (2, 4), (3, 0), seed=0).tables[0].rows
    share = (rows == 0).double().mean().item()
    assert 0.3 < share < 0.6
    assert rows.abs().max() <= 3.0
