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
        """What the chosen experts give, weighted by their probabilities [n, d]."""
        weight_nk, chosen_nk = p_ne.topk(self.top_k, dim=-1)
        y_nd = torch.zeros_like(x_nd)
        for expert in range(len(self.router_ed)):
            token, rank = torch.nonzero(chosen_nk == expert, as_tuple=True)
            out = self._expert(expert, x_nd[token]) * weight_nk[token, rank, None].to(x_nd.dtype)
            y_nd = y_nd.index_add(0, token, out)
        return y_nd

    def probabilities(self, x_nd: Tensor) -> Tensor:
        """fp32 [n, e]."""
        return F.linear(x_nd.float(), self.router_ed).softmax(-1)

    def balance(self, p_ne: Tensor) -> Tensor:
        """1 where experts share tokens and probability evenly, more elsewhere."""
        chosen_ne = torch.zeros_like(p_ne).scatter_(1, p_ne.topk(self.top_k).indices, 1.0)
        share_e = parallel.mean(chosen_ne) / self.top_k
        return p_ne.shape[1] * (share_e * parallel.mean(p_ne)).sum()

    def _expert(self, expert: int, x_nd: Tensor) -> Tensor:
        inner_nf = swiglu(x_nd @ self.gate_up_edf[expert].to(x_nd.dtype))
        return inner_nf @ self.down_efd[expert].to(x_nd.dtype)


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
