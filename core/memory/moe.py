"""Sparse mixture of experts in place of the FFN: the baseline that spends its bank on tokens.

y = sum over the top k experts of p_e FFN_e(x), p = softmax(R x) over all experts; no token is
dropped. The load-balance loss 0.01 E sum_e f_e p_e pulls each expert's share f_e of the tokens and
its mean probability p_e together, within each micro-batch. Source: arXiv 2101.03961, with k experts
for its one.
Down matrices start at zero: at first a layer is as if its FFN were off.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core import parallel
from core.anchor import truncated_normal
from core.config import AnchorConfig
from core.dataset import PADDING
from core.memory.base import Attached
from core.memory.tokens import TokenMemory
from core.memory_config import MemoryConfig
from core.past import Past
from core.pointwise import swiglu

BALANCE = 0.01
# A CPU makes code for each new size of a bf16 product, a millisecond each: so there are few sizes.
GROUP = 64


class ExpertLayer(nn.Module):
    """Router [e, d] and the SwiGLU matrices of e experts."""

    def __init__(self, memory: MemoryConfig, anchor: AnchorConfig, draw: torch.Generator) -> None:
        super().__init__()
        assert memory.experts and memory.top_k
        d, f, e = anchor.d_model, memory.expert_width or anchor.ffn, memory.experts
        self.top_k = memory.top_k
        self.router_ed = nn.Parameter(torch.empty(e, d))
        self.gate_up_edf = nn.Parameter(torch.empty(e, d, 2 * f))
        self.down_efd = nn.Parameter(torch.zeros(e, f, d))
        std = d**-0.5  # as the anchor's own matrices
        for weight in (self.router_ed, self.gate_up_edf):
            truncated_normal(weight, std, draw)

    def forward(self, x_nd: Tensor, real_n: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [n, d] and the balance over the tokens `real_n`."""
        p_ne = self.probabilities(x_nd)
        return self.mix(x_nd, p_ne), self.balance(p_ne[real_n])

    def mix(self, x_nd: Tensor, p_ne: Tensor) -> Tensor:
        """What the chosen experts give, weighted by their probabilities [n, d].

        Tokens stand in m places by expert, each once for each expert that it chose.
        """
        weight_nk, chosen_nk = p_ne.topk(self.top_k, dim=-1)
        order, place, sizes_e = _places(chosen_nk.flatten(), p_ne.shape[1])
        token_m = order.new_zeros(sum(sizes_e)).index_copy(0, place, order // self.top_k)
        weights = weight_nk.flatten().index_select(0, order)  # places that are left weigh nothing
        weight_m = weights.new_zeros(len(token_m)).index_copy(0, place, weights)
        inner_mf = swiglu(_each(x_nd.index_select(0, token_m), sizes_e, self.gate_up_edf))
        out_md = _each(inner_mf, sizes_e, self.down_efd) * weight_m[:, None].to(x_nd.dtype)
        return torch.zeros_like(x_nd).index_add(0, token_m, out_md)

    def probabilities(self, x_nd: Tensor) -> Tensor:
        """fp32 [n, e]."""
        return F.linear(x_nd.float(), self.router_ed).softmax(-1)

    def balance(self, p_ne: Tensor) -> Tensor:
        """1 where experts share tokens and probability evenly, more elsewhere."""
        chosen_ne = torch.zeros_like(p_ne).scatter_(1, p_ne.topk(self.top_k).indices, 1.0)
        share_e = parallel.mean(chosen_ne) / self.top_k
        return p_ne.shape[1] * (share_e * parallel.mean(p_ne)).sum()


def _places(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """The order that sorts choices by expert, the place of each in it, and the places of each
    expert: as many as it has choices, rounded up to GROUP.
    """
    sorted_choices, order = chosen.sort(stable=True)
    count_e = sorted_choices.bincount(minlength=experts)
    size_e = (count_e + GROUP - 1) // GROUP * GROUP
    empty_e = (size_e - count_e).cumsum(0) - (size_e - count_e)  # before an expert's places
    place = torch.arange(len(order), device=order.device) + empty_e[sorted_choices]
    return order, place, size_e.tolist()


def _each(x_mi: Tensor, sizes_e: list[int], weight_eio: Tensor) -> Tensor:
    """Rows in groups of those sizes, each times its own matrix [m, o]."""
    matrices = weight_eio.to(x_mi.dtype).unbind()
    parts = zip(x_mi.split(sizes_e), matrices, strict=True)
    return torch.cat([x @ weight_io for x, weight_io in parts])


class AttachedExperts(Attached):
    compilable = False

    def __init__(self, layer: ExpertLayer, real_bt: Tensor) -> None:
        self.layer, self.real_bt = layer, real_bt

    def after_ffn(
        self, x_btd: Tensor, normed_btd: Tensor, ffn: Callable[[Tensor, Attached], Tensor]
    ) -> Tensor:
        y_nd, balance = self.layer(normed_btd.flatten(0, 1), self.real_bt.flatten())
        self.penalty = BALANCE * balance
        return x_btd + y_nd.view_as(x_btd)


class Experts(TokenMemory):
    def reader(self, draw: torch.Generator) -> nn.Module:
        return ExpertLayer(self.memory, self.anchor, draw)

    def attach_reader(
        self, site: int, tokens_bt: Tensor, segments_bt: Tensor, dtype: torch.dtype, past: Past
    ) -> Attached:
        real_bt = segments_bt[:, past.length :] != PADDING
        return AttachedExperts(cast(ExpertLayer, self.readers[site]), real_bt)
