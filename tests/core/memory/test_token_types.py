"""Memories that tokens address, against loops over tokens and over every slot."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.anchor import Anchor
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.memory.moe import Experts
from core.memory.ngram import NGramMemory
from core.memory.pkm import PKMemory
from core.memory.tokens import TokenMemory
from core.memory_types import table_rows
from core.model import Model
from core.trainer import Trainer

MEMORIES: dict[str, dict[str, Any]] = {
    "pkm": {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3},
    "ngram": {"type": "ngram", "rows": 90, "heads": 2, "row_dim": 4},
    "moe": {"type": "moe", "experts": 3, "top_k": 2},
}
Make = Callable[..., RunConfig]


def inputs() -> tuple[Tensor, Tensor]:
    """Three rows of two documents each."""
    tokens = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    segments = torch.zeros(3, 16, dtype=torch.uint8)
    segments[:, 9:] = 1
    return tokens, segments


def randomised(config: RunConfig) -> Model:
    """A model in fp32 whose memory does something everywhere."""
    model = Model(config, "cpu", "fp32")
    assert model.token_memory is not None
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.token_memory.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        for table in model.token_memory.tables.values():
            table.rows.copy_(torch.randn(table.rows.shape, generator=generator))
    return model


def memory_of(model: Model, kind: type[TokenMemory]) -> Any:
    assert isinstance(model.token_memory, kind)
    return model.token_memory


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_op_at_the_start_to_the_bit(make_config: Make, name: str, precision: str) -> None:
    """A type that replaces the FFN starts as the anchor with the FFN of that layer off."""
    tokens, segments = inputs()
    model = Model(make_config(memory={**MEMORIES[name], "placement": [1]}), "cpu", precision)
    bare = Model(make_config(), "cpu", precision)
    if name != "ngram":
        torch.nn.init.zeros_(bare.anchor.layers[1].ffn.down.weight)
    expected = bare.hidden(tokens, segments, None)
    assert torch.equal(model.hidden(tokens, segments, []), expected)
    assert torch.equal(model.hidden(tokens, segments, None), expected)


@pytest.mark.parametrize("name", MEMORIES)
def test_documents_do_not_see_each_other(make_config: Make, name: str) -> None:
    """Each document of a mixed batch of packed rows has what it has alone."""
    model = randomised(make_config(memory=MEMORIES[name]))
    tokens, segments = inputs()
    together = model.hidden(tokens, segments, [])
    assert (together - model.hidden(tokens, segments, None)).abs().max() > 1e-3
    for row in range(3):
        for part in (slice(0, 9), slice(9, 16)):
            where = (slice(row, row + 1), part)
            alone = model.hidden(tokens[where], segments[where], [])
            torch.testing.assert_close(alone, together[where], rtol=1e-4, atol=1e-5)


def test_product_keys_equal_all_slots_by_brute_force(make_config: Make) -> None:
    """Score every slot of every head, keep the best, for values and gradients."""
    model = randomised(make_config(memory=MEMORIES["pkm"]))
    memory = memory_of(model, PKMemory)
    layer, values = memory.readers[0], memory.tables["values"].rows
    x_nd = torch.randn(7, 16, generator=torch.Generator().manual_seed(3))
    copied = values.detach().clone().requires_grad_()
    outputs = []
    for x_d in x_nd:
        y_d = torch.zeros(16)
        for h in range(2):
            first, second = (x_d @ layer.query_hdk[h]).split(4)
            scores = torch.stack(
                [
                    first @ layer.keys_h2sk[h, 0, i] + second @ layer.keys_h2sk[h, 1, j]
                    for i in range(6)
                    for j in range(6)
                ]
            )
            best, slot = scores.topk(3)
            y_d = y_d + best.softmax(-1) @ copied[slot]
        outputs.append((y_d * F.silu(x_d @ layer.gate_dd)) @ layer.out_dd)
    expected = torch.stack(outputs)
    got = layer(x_nd, values)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    weight = torch.randn(got.shape, generator=torch.Generator().manual_seed(4))
    dense = [layer.query_hdk, layer.keys_h2sk, layer.gate_dd, layer.out_dd]
    grads = [
        torch.autograd.grad((out * weight).sum(), [*dense, table])
        for out, table in ((got, values), (expected, copied))
    ]
    assert grads[0][-1].is_sparse
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one.to_dense(), two, rtol=1e-4, atol=1e-5)


def slow_addresses(memory: NGramMemory, tokens: list[int], site: int) -> list[list[int]]:
    """Rows of each position of one document, in Python's integers."""
    multipliers = memory.multipliers_ln[site].tolist()
    rows = []
    for t in range(len(tokens)):
        row, start = [], 0
        for head, size in enumerate(memory.sizes):
            n = 2 if head < len(memory.sizes) // 2 else 3
            hashed = 0
            for back in range(n):
                token = tokens[t - back] if t >= back else -1
                hashed ^= token * multipliers[back]
            row.append(start + hashed % size)
            start += size
        rows.append(row)
    return rows


def normed(x_d: Tensor, gain_d: Tensor) -> Tensor:
    return x_d / (x_d.pow(2).mean() + 1e-6).sqrt() * gain_d


def test_ngrams_equal_a_loop_over_tokens(make_config: Make) -> None:
    model = randomised(make_config(memory=MEMORIES["ngram"]))
    memory = memory_of(model, NGramMemory)
    tokens, segments = inputs()
    h_btd = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5))
    for site, reader in enumerate(memory.readers):
        attached = memory.attach(tokens, segments, torch.float32, 2)[site]
        got = attached.before_attention(h_btd)
        table = memory.tables[f"layer{site}"].rows
        for b in range(3):
            for part in (slice(0, 9), slice(9, 16)):
                rows = slow_addresses(memory, tokens[b, part].tolist(), site)
                gated = []
                for h_d, row in zip(h_btd[b, part], rows, strict=True):
                    e_w = table[row].flatten()
                    key_d = normed(reader.key.weight @ e_w, reader.k_norm.gain)
                    match = (normed(h_d, reader.h_norm.gain) @ key_d).item() / 4
                    gate = 1 / (1 + math.exp(-math.copysign(abs(match) ** 0.5, match)))
                    gated.append(gate * (reader.value.weight @ e_w))
                for t, v_d in enumerate(gated):
                    mixed_d = torch.zeros(16)
                    for j in range(4):
                        if t >= 3 * j:
                            earlier = normed(gated[t - 3 * j], reader.v_norm.gain)
                            mixed_d = mixed_d + reader.taps_jd[j] * earlier
                    expected = h_btd[b, part][t] + v_d + mixed_d * mixed_d.sigmoid()
                    torch.testing.assert_close(got[b, part][t], expected, rtol=1e-3, atol=1e-4)


def test_tables_have_unlike_prime_sizes() -> None:
    assert table_rows(90, 2) == (89, 83, 79, 73)
    assert table_rows(7, 2) == (7, 5, 3, 2)


def test_experts_equal_a_loop_over_tokens(make_config: Make) -> None:
    model = randomised(make_config(memory=MEMORIES["moe"]))
    layer = memory_of(model, Experts).readers[0]
    x_nd = torch.randn(11, 16, generator=torch.Generator().manual_seed(6))
    got, balance = layer(x_nd, torch.ones(11, dtype=torch.bool))
    share, mean = torch.zeros(3), torch.zeros(3)
    for n, x_d in enumerate(x_nd):
        p_e = (layer.router_ed @ x_d).softmax(-1)
        expected = torch.zeros(16)
        for e in sorted(range(3), key=lambda e: -p_e[e].item())[:2]:
            gate, up = (x_d @ layer.gate_up_edf[e]).chunk(2)
            expected = expected + p_e[e] * ((F.silu(gate) * up) @ layer.down_efd[e])
            share[e] += 1 / 22
        mean += p_e / 11
        torch.testing.assert_close(got[n], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(balance, 3 * (share * mean).sum())


def test_even_experts_have_a_balance_of_one(make_config: Make) -> None:
    layer = memory_of(Model(make_config(memory=MEMORIES["moe"]), "cpu", "fp32"), Experts).readers[0]
    p_ne = torch.full((3, 3), 1 / 3) + 0.01 * torch.eye(3) - 0.01 / 3
    p_ne = p_ne + 0.005 * torch.eye(3).roll(1, 0)  # each expert is first once and second once
    assert layer.balance(p_ne / p_ne.sum(1, keepdim=True)).item() == pytest.approx(1)
    lopsided = torch.tensor([[0.8, 0.15, 0.05]] * 3)
    assert layer.balance(lopsided).item() == pytest.approx(3 * 0.95 / 2)


def test_the_balance_moves_the_router_and_is_not_in_the_loss(make_config: Make) -> None:
    model = randomised(make_config(memory=MEMORIES["moe"]))
    tokens, segments = inputs()
    loss = model.summed_loss(tokens, segments, [])
    hidden = model.hidden(tokens[:, :-1], segments[:, :-1], [])
    nll = F.cross_entropy(
        model.anchor.logits(hidden).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    ).view(3, 15)
    scored = segments[:, 1:] == segments[:, :-1]
    assert loss.item() == pytest.approx(nll[scored].sum().item(), rel=1e-5)
    router = memory_of(model, Experts).readers[0].router_ed
    (with_balance,) = torch.autograd.grad(loss, router)
    (without,) = torch.autograd.grad(nll[scored].sum(), router)
    assert (with_balance - without).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["pkm", "ngram"])
def test_rows_not_read_do_not_change_by_a_bit(
    make_config: Make, dataset: Dataset, tmp_path: Path, name: str
) -> None:
    sizes = {"keys": 40} if name == "pkm" else {"rows": 2000}
    config = make_config(memory={**MEMORIES[name], **sizes, "weight_decay": 0.1})
    trainer = Trainer(config, Runtime(), tmp_path, dataset, lambda _: None)
    memory = trainer.model.token_memory
    assert memory is not None
    for _ in range(4):  # at first zeros stand before the rows, and no gradient reaches them
        trainer.train_step(config.steps)
    before = {n: t.clone() for n, t in memory.table_state().items()}
    steps = {table: state.steps.clone() for table, state in memory.tables.items()}
    trainer.train_step(config.steps)
    for table, state in memory.tables.items():
        read_n = state.steps > steps[table]
        assert 0 < read_n.sum() < len(read_n)
        for part, tensor in state.state().items():
            assert torch.equal(tensor[~read_n], before[f"{table}.{part}"][~read_n])
        assert not torch.equal(state.rows[read_n], before[f"{table}.rows"][read_n])


@pytest.mark.parametrize("order", [[1, 3, 4], [4, 1, 3, 1]])
def test_rows_without_a_gradient_are_left_alone(make_config: Make, order: list[int]) -> None:
    """Once each or again and again, in any order; a row may begin with a zero, or be no number."""
    memory = memory_of(randomised(make_config(memory=MEMORIES["pkm"])), PKMemory)
    rows = memory.tables["values"].rows
    given_nd = torch.zeros(len(rows), rows.shape[1])
    given_nd[1, -1], given_nd[4, 0] = 2.0, math.nan
    rows.grad = torch.sparse_coo_tensor(
        torch.tensor([order]), given_nd[order], rows.shape, check_invariants=True
    )
    (gradient,) = memory.row_gradients()
    assert gradient.ids.tolist() == [1, 4]
    assert gradient.values[0, -1] == 2.0 * order.count(1)
    assert gradient.values[1, 0].isnan()


def test_layers_and_micro_batches_give_one_update_of_a_row(make_config: Make) -> None:
    """The gradient that RowAdamW sees is the dense one, summed over layers and micro-batches."""
    model = randomised(make_config(memory=MEMORIES["pkm"]))
    tokens, segments = inputs()
    for part in (slice(0, 1), slice(1, 3)):
        model.summed_loss(tokens[part], segments[part], []).backward()
    (rows,) = model.row_gradients([])
    assert model.row_gradients([]) == []
    assert rows.ids.tolist() == sorted(set(rows.ids.tolist()))
    gradient = rows.values
    values = memory_of(model, PKMemory).tables["values"].rows
    slopes = []
    for step in (1e-2, -1e-2):
        moved = copy.deepcopy(values.detach())
        with torch.no_grad():
            values[rows.ids] += step * gradient / gradient.norm()
        slopes.append(model.summed_loss(tokens, segments, []).item())
        with torch.no_grad():
            values.copy_(moved)
    assert (slopes[0] - slopes[1]) / 2e-2 == pytest.approx(gradient.norm().item(), rel=2e-2)


def test_arms_share_their_initial_anchor(make_config: Make) -> None:
    config = make_config()
    whole = Anchor(config.anchor, 300, seed=0).state_dict()
    for name in MEMORIES:
        anchor = Model(make_config(memory=MEMORIES[name]), "cpu", "fp32").anchor.state_dict()
        assert all(torch.equal(tensor, whole[key]) for key, tensor in anchor.items())
