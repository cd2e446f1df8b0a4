"""Product-key memory in place of the FFN, as in Memory+ (arXiv 2412.09764, sec. 3).

A head's query is cut in two; each half meets `keys` half keys, and the best k of each give k^2
slots of which the best k are read: out of keys^2 slots, without scoring them all.
y = sum over heads and their slots of softmax(score) V[slot]; the layer adds (y * SiLU(x W1)) W2.
All layers read one pool of values; queries, keys and gates are a layer's own, without biases.
W2 starts at zero: at first a layer is as if its FFN were off.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.anchor import truncated_normal
from core.config import AnchorConfig
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
        scores_h2ns = (q_h2nk @ self.keys_h2sk.to(x_nd.dtype).transpose(-1, -2)).float()
        first_hnk, second_hnk = best_pairs(scores_h2ns.detach(), self.top_k)
        score = scores_h2ns[:, 0].gather(-1, first_hnk) + scores_h2ns[:, 1].gather(-1, second_hnk)
        return score, first_hnk * self.keys_h2sk.shape[2] + second_hnk

    def forward(self, x_nd: Tensor, values: Tensor) -> Tensor:
        score_hnk, slot_hnk = self.slots(x_nd)
        slot_nk, weight_nk = (
            part.transpose(0, 1).flatten(1) for part in (slot_hnk, score_hnk.softmax(-1))
        )
        y_nd = read_values(slot_nk, weight_nk, values).to(x_nd.dtype)
        gate_nd = F.silu(x_nd @ self.gate_dd.to(x_nd.dtype))
        return (y_nd * gate_nd) @ self.out_dd.to(x_nd.dtype)


def best_pairs(scores_h2ns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Key numbers [h, n, k] in either half of the k pairs with the largest sums, best first."""
    best, key = scores_h2ns.topk(k, dim=-1)
    i, j = (rank.to(key.device) for rank in _candidates(k))
    sums = best[:, 0].index_select(-1, i) + best[:, 1].index_select(-1, j)
    which_hnk = sums.topk(k, dim=-1).indices
    return key[:, 0].gather(-1, i[which_hnk]), key[:, 1].gather(-1, j[which_hnk])


@cache
def _candidates(k: int) -> tuple[Tensor, Tensor]:
    """Ranks (i, j) that can be among the best k: (i + 1) (j + 1) - 1 others are no worse."""
    ranks = torch.arange(1, k + 1)
    i, j = torch.nonzero(torch.outer(ranks, ranks) <= k, as_tuple=True)
    return i, j


def read_values(slot_nk: Tensor, weight_nk: Tensor, values_sd: Tensor) -> Tensor:
    """[n, d]: the weighted sum of each token's slots; the gradient of the values is sparse."""
    y_nd = F.embedding_bag(slot_nk, values_sd.detach(), mode="sum", per_sample_weights=weight_nk)
    read: Tensor = _ValueGradient.apply(y_nd, slot_nk, weight_nk, values_sd)  # type: ignore[no-untyped-call]
    return read


class _ValueGradient(torch.autograd.Function):
    """Hands y on and, backwards, gives each slot that was read its gradient, once.

    embedding_bag's own sparse gradient has a row a read, hundreds of times what is read.
    """

    @staticmethod
    def forward(
        ctx: Any, y_nd: Tensor, slot_nk: Tensor, weight_nk: Tensor, values_sd: Tensor
    ) -> Tensor:
        ctx.save_for_backward(slot_nk, weight_nk)
        ctx.shape = values_sd.shape
        return y_nd.view_as(y_nd)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor]:
        (grad_nd,) = grads
        slot_nk, weight_nk = ctx.saved_tensors
        slot_r, read_r = slot_nk.flatten().sort(stable=True)  # r: reads, by slot
        slot_u, count_u = slot_r.unique_consecutive(return_counts=True)
        grad_ud = F.embedding_bag(
            read_r // slot_nk.shape[1],
            grad_nd,
            offsets=count_u.cumsum(0) - count_u,
            mode="sum",
            per_sample_weights=weight_nk.flatten()[read_r],
        )
        grad_sd = torch.sparse_coo_tensor(
            slot_u[None], grad_ud, ctx.shape, check_invariants=False, is_coalesced=True
        )
        return grad_nd, None, None, grad_sd


class AttachedKeys(Attached):
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
