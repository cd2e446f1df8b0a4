"""Product-key memory in place of the FFN, as in Memory+ (arXiv 2412.09764, sec. 3).

A head's query is cut in two; each half meets `keys` half keys, and the best k of each give k^2
slots of which the best k are read: out of keys^2 slots, without scoring them all.
y = sum over heads and their slots of softmax(score) V[slot]; the layer adds (y * SiLU(x W1)) W2.
All layers read one pool of values; queries, keys and gates are a layer's own, without biases.
W2 starts at zero: at first a layer is as if its FFN were off.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.anchor import truncated_normal
from core.config import AnchorConfig
from core.memory import key_kernels
from core.memory.base import Attached
from core.memory.table import ResidentTable
from core.memory.tokens import TokenMemory
from core.memory_config import MemoryConfig
from core.past import Past

VALUE_LR = 1e-3  # fixed, whatever the anchor's schedule; source: arXiv 2412.09764


class KeyLayer(nn.Module):
    """query_hdk and, per head and half, keys_h2sk; gate and out [d, d]. k is d / 4."""

    def __init__(self, memory: MemoryConfig, anchor: AnchorConfig, draw: torch.Generator) -> None:
        super().__init__()
        assert memory.keys and memory.heads and memory.top_k
        d, half = anchor.d_model, anchor.d_model // 4
        self.top_k = memory.top_k
        self.query_hdk = nn.Parameter(torch.empty(memory.heads, d, 2 * half))
        self.keys_h2sk = nn.Parameter(torch.empty(memory.heads, 2, memory.keys, half))
        self.gate_dd = nn.Parameter(torch.empty(d, d))
        self.out_dd = nn.Parameter(torch.zeros(d, d))
        std = d**-0.5  # as the anchor's own matrices
        for weight in (self.query_hdk, self.gate_dd):
            truncated_normal(weight, std, draw)
        bound = (2 * half) ** -0.5
        nn.init.uniform_(self.keys_h2sk, -bound, bound, generator=draw)

    def slots(self, x_nd: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and numbers [h, n, k] of the best slots; a slot is first key x keys + second."""
        q_h2nk = (x_nd @ self.query_hdk.to(x_nd.dtype)).unflatten(-1, (2, -1)).transpose(1, 2)
        score_hnk, (first_hnk, second_hnk) = best_scores(q_h2nk, self.keys_h2sk, self.top_k)
        return score_hnk, first_hnk * self.keys_h2sk.shape[2] + second_hnk

    def forward(self, x_nd: Tensor, values: Tensor) -> Tensor:
        score_hnk, slot_hnk = self.slots(x_nd)
        slot_nk, weight_nk = (
            part.transpose(0, 1).flatten(1).contiguous()
            for part in (slot_hnk, score_hnk.softmax(-1))
        )
        y_nd = read_values(slot_nk, weight_nk, values).to(x_nd.dtype)
        gate_nd = F.silu(x_nd @ self.gate_dd.to(x_nd.dtype))
        return (y_nd * gate_nd) @ self.out_dd.to(x_nd.dtype)


def best_scores(q_h2nk: Tensor, keys_h2sk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sums [h, n, k] of the scores of the best pairs of keys, and the pairs [2, h, n, k]."""
    if not _compiled(keys_h2sk):
        return _best_scores(q_h2nk, keys_h2sk, k)
    best: tuple[Tensor, Tensor] = _Scores.apply(q_h2nk, keys_h2sk, k)  # type: ignore[no-untyped-call]
    return best


def _best_scores(q_h2nk: Tensor, keys_h2sk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    scores_h2ns = (q_h2nk @ keys_h2sk.to(q_h2nk.dtype).transpose(-1, -2)).float()
    chosen_2hnk = best_pairs(scores_h2ns.detach(), k)
    return scores_h2ns.gather(-1, chosen_2hnk.transpose(0, 1)).sum(1), chosen_2hnk


def best_pairs(scores_h2ns: Tensor, k: int) -> Tensor:
    """Key numbers [2, h, n, k] in either half of the k pairs with the largest sums, best first."""
    if not _compiled(scores_h2ns):
        return _best_of_all(scores_h2ns, k)
    heads, _, tokens, _ = scores_h2ns.shape
    chosen_2hnk = torch.empty(2, heads, tokens, k, dtype=torch.int64)
    key_kernels.best_pairs(scores_h2ns.contiguous().numpy(), chosen_2hnk.numpy())
    return chosen_2hnk


def _best_of_all(scores_h2ns: Tensor, k: int) -> Tensor:
    best, key = scores_h2ns.topk(k, dim=-1)
    which_hnk = (best[:, 0, :, :, None] + best[:, 1, :, None, :]).flatten(-2).topk(k, -1).indices
    halves = key[:, 0].gather(-1, which_hnk // k), key[:, 1].gather(-1, which_hnk % k)
    return torch.stack(halves)


def read_values(slot_nk: Tensor, weight_nk: Tensor, values_sd: Tensor) -> Tensor:
    """[n, d]: the weighted sum of each token's slots; the gradient of the values is sparse."""
    if not _compiled(values_sd):
        return F.embedding_bag(
            slot_nk, values_sd, mode="sum", sparse=True, per_sample_weights=weight_nk
        )
    read: Tensor = _Read.apply(slot_nk, weight_nk, values_sd)  # type: ignore[no-untyped-call]
    return read


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


class _Scores(torch.autograd.Function):
    """Its gradient passes through the chosen scores alone, where torch's own is made of all."""

    @staticmethod
    def forward(ctx: Any, q_h2nk: Tensor, keys_h2sk: Tensor, k: int) -> tuple[Tensor, Tensor]:
        score_hnk, chosen_2hnk = _best_scores(q_h2nk, keys_h2sk, k)
        ctx.save_for_backward(q_h2nk, keys_h2sk, chosen_2hnk)
        ctx.mark_non_differentiable(chosen_2hnk)
        return score_hnk, chosen_2hnk

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        q_h2nk, keys_h2sk, chosen_2hnk = ctx.saved_tensors
        wide_h2nk = q_h2nk.float().contiguous()
        dq_h2nk, dkeys_h2sk = torch.empty_like(wide_h2nk), torch.zeros_like(keys_h2sk)
        keys_h2sk = keys_h2sk.clone()  # numpy would hold on to what FSDP is to free
        given = grads[0].contiguous(), chosen_2hnk, wide_h2nk, keys_h2sk
        key_kernels.scores_backward(*(x.numpy() for x in (*given, dq_h2nk, dkeys_h2sk)))
        return dq_h2nk.to(q_h2nk.dtype), dkeys_h2sk, None


class _Read(torch.autograd.Function):
    """Its gradient has a row a slot that was read, where torch's own has one a read."""

    @staticmethod
    def forward(ctx: Any, slot_nk: Tensor, weight_nk: Tensor, values_sd: Tensor) -> Tensor:
        ctx.save_for_backward(slot_nk, weight_nk, values_sd)
        return F.embedding_bag(slot_nk, values_sd, mode="sum", per_sample_weights=weight_nk)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor]:
        slot_nk, weight_nk, values_sd = ctx.saved_tensors
        start_s = torch.zeros(len(values_sd) + 1, dtype=torch.int64)
        read_r, slot_u = torch.empty(2, slot_nk.numel(), dtype=torch.int64)
        order = slot_nk.flatten(), start_s, read_r, slot_u
        slot_u = slot_u[: key_kernels.by_slot(*(x.numpy() for x in order))]
        dweight_nk = torch.empty_like(weight_nk)
        dvalues_ud = values_sd.new_empty(len(slot_u), values_sd.shape[1])
        given = grads[0].contiguous(), weight_nk.flatten(), values_sd.detach(), *order[1:3], slot_u
        found = dweight_nk.view(-1), dvalues_ud
        key_kernels.read_backward(*(x.numpy() for x in (*given, *found)))
        dvalues_sd = torch.sparse_coo_tensor(
            slot_u[None], dvalues_ud, values_sd.shape, check_invariants=False, is_coalesced=True
        )
        return None, dweight_nk, dvalues_sd


class AttachedKeys(Attached):
    compilable = False

    def __init__(self, layer: KeyLayer, values: Tensor) -> None:
        self.layer, self.values = layer, values

    def after_ffn(
        self, x_btd: Tensor, normed_btd: Tensor, ffn: Callable[[Tensor, Attached], Tensor]
    ) -> Tensor:
        return x_btd + self.layer(normed_btd.flatten(0, 1), self.values).view_as(x_btd)


class PKMemory(TokenMemory):
    @property
    def row_lr(self) -> float:
        return self.memory.value_lr or VALUE_LR

    def reader(self, draw: torch.Generator) -> nn.Module:
        return KeyLayer(self.memory, self.anchor, draw)

    def create_tables(self, draw: torch.Generator) -> dict[str, ResidentTable]:
        assert self.memory.keys
        d = self.anchor.d_model
        values = torch.empty(self.memory.keys**2, d).normal_(std=d**-0.5, generator=draw)
        return {"values": ResidentTable(values, (d,))}

    def attach_reader(
        self, site: int, tokens_bt: Tensor, segments_bt: Tensor, dtype: torch.dtype, past: Past
    ) -> Attached:
        return AttachedKeys(cast(KeyLayer, self.readers[site]), self.tables["values"].rows)
