"""Hashed n-gram tables with a context gate, as in Engram (arXiv 2601.07372).

The last two and three tokens of a document, hashed, name one row in each of K tables; e is all
those rows in a line, k = W_K e, v = W_V e, and at position t with hidden state h
    a = sigmoid(s(RMSNorm(h) . RMSNorm(k) / sqrt d)),  s(x) = sign(x) sqrt |x|
    y = a v + SiLU(conv(RMSNorm(a v)))
is added to the residual stream before attention. conv is causal and depthwise, four taps three
tokens apart, and starts at zero. Rows start at zero too, so the memory is a no-op and an n-gram
that training never met stays one. Token ids are hashed as they are; the source first merges those
whose text is alike.
"""

from functools import cached_property
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.anchor import Linear, truncated_normal
from core.memory.base import Attached
from core.memory.table import ResidentTable
from core.memory.tokens import TokenMemory
from core.memory_types import CONVOLUTION, NGRAMS, table_rows
from core.past import Past
from core.pointwise import RMSNorm

DILATION = 3
HASH_BITS = 31  # of a multiplier: times a 16-bit token it stays within int64


class NGramLayer(nn.Module):
    """One layer's projections, gate and convolution."""

    def __init__(self, width: int, d_model: int, draw: torch.Generator) -> None:
        super().__init__()
        self.key, self.value = Linear(width, d_model), Linear(width, d_model)
        self.h_norm, self.k_norm, self.v_norm = (RMSNorm(d_model) for _ in range(3))
        self.taps_jd = nn.Parameter(torch.zeros(CONVOLUTION, d_model))
        for linear in (self.key, self.value):
            truncated_normal(linear.weight, linear.std, draw)

    def forward(self, h_btd: Tensor, e_btw: Tensor, segments_bt: Tensor, past: Past) -> Tensor:
        match_bt1 = (self.h_norm(h_btd) * self.k_norm(self.key(e_btw))).sum(-1, keepdim=True)
        scaled_bt1 = match_bt1 * h_btd.shape[-1] ** -0.5
        root_bt1 = scaled_bt1.abs().clamp_min(1e-6).sqrt() * scaled_bt1.sign()
        v_btd = root_bt1.sigmoid() * self.value(e_btw)
        normed_btd = past.join("ngram values", self.v_norm(v_btd))
        convolved_btd = self._convolve(normed_btd, segments_bt)[:, -h_btd.shape[1] :]
        return v_btd + F.silu(convolved_btd)

    def _convolve(self, x_btd: Tensor, segments_bt: Tensor) -> Tensor:
        taps_jd = self.taps_jd.to(x_btd.dtype)
        return torch.stack(
            [taps_jd[j] * before(x_btd, DILATION * j, segments_bt, 0) for j in range(CONVOLUTION)]
        ).sum(0)


def before(x_bt: Tensor, steps: int, segments_bt: Tensor, absent: int) -> Tensor:
    """x [b, t, ...] of `steps` tokens earlier in its document, `absent` where there is none."""
    shifted_bt = torch.full_like(x_bt, absent)
    t = x_bt.shape[1]
    if steps >= t:
        return shifted_bt
    same_bt = segments_bt[:, steps:] == segments_bt[:, : t - steps]
    same = same_bt.view(*same_bt.shape, *[1] * (x_bt.dim() - 2))
    shifted_bt[:, steps:] = torch.where(same, x_bt[:, : t - steps], shifted_bt[:, steps:])
    return shifted_bt


class AttachedNGrams(Attached):
    def __init__(self, layer: NGramLayer, e_btw: Tensor, segments_bt: Tensor, past: Past) -> None:
        self.layer, self.e_btw, self.segments_bt, self.past = layer, e_btw, segments_bt, past

    def before_attention(self, x_btd: Tensor) -> Tensor:
        return x_btd + self.layer(x_btd, self.e_btw, self.segments_bt, self.past)


class NGramMemory(TokenMemory):
    """A table a layer: the rows of all heads, one head behind the other."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each head, bigrams first."""
        assert self.memory.rows and self.memory.heads
        return table_rows(self.memory.rows, self.memory.heads)

    @cached_property
    def multipliers_ln(self) -> Tensor:
        """Odd, so that no bit of a token is lost; the same in every run, as the type's own."""
        fixed = torch.Generator().manual_seed(0)
        low, high, shape = 2 ** (HASH_BITS - 1), 2**HASH_BITS, (len(self.layers), max(NGRAMS))
        return torch.randint(low, high, shape, generator=fixed) | 1

    def reader(self, draw: torch.Generator) -> nn.Module:
        assert self.memory.row_dim
        return NGramLayer(len(self.sizes) * self.memory.row_dim, self.anchor.d_model, draw)

    def create_tables(self, draw: torch.Generator) -> dict[str, ResidentTable]:
        assert self.memory.row_dim
        shape = (sum(self.sizes), self.memory.row_dim)
        return {f"layer{n}": ResidentTable(torch.zeros(shape), shape[1:]) for n in self.layers}

    def attach_reader(
        self, site: int, tokens_bt: Tensor, segments_bt: Tensor, dtype: torch.dtype, past: Past
    ) -> Attached:
        rows_bth = self.addresses(tokens_bt, segments_bt, site)[:, past.length :]
        table = self.tables[f"layer{self.layers[site]}"].rows
        e_btw = F.embedding(rows_bth, table, sparse=True).flatten(2).to(dtype)
        return AttachedNGrams(cast(NGramLayer, self.readers[site]), e_btw, segments_bt, past)

    def addresses(self, tokens_bt: Tensor, segments_bt: Tensor, site: int) -> Tensor:
        """Rows [b, t, heads of bigrams, then of trigrams]: XOR of products, mod each prime."""
        multipliers = self.multipliers_ln[site].tolist()
        hash_bt = tokens_bt * multipliers[0]
        hashes = []
        for back in range(1, max(NGRAMS)):
            earlier_bt = before(tokens_bt, back, segments_bt, -1)  # -1: the document starts here
            hash_bt = hash_bt ^ (earlier_bt * multipliers[back])
            hashes.append(hash_bt)
        heads = len(self.sizes) // len(NGRAMS)
        sizes = torch.tensor(self.sizes, device=tokens_bt.device)
        offsets = sizes.cumsum(0) - sizes
        hash_bth = torch.stack(hashes, dim=-1).repeat_interleave(heads, dim=-1)
        return hash_bth % sizes + offsets
