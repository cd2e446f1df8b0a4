"""The anchor: a decoder-only transformer, and the sites where memory attaches.

Notable:
- RMSNorm before each half-layer, RoPE, SwiGLU, no biases, tied or untied head
- QK-norm with one gain over all heads (the parameter counts of arXiv 2510.02375 imply it)
- documents packed in one row do not see each other
- fp32 weights; products in the precision of the run
- attention in plain products, on CPUs with bf16 units four times faster than torch's fused call,
  or in that call; layers of long runs by torch's compiler or not: a sweep measures which

Shape letters: b batch, t time, d model, h heads, k head dim, f FFN, v vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.config import AnchorConfig
from core.heads import rotary, split_heads
from core.memory.base import Attached
from core.past import NO_PAST, Past
from core.pointwise import RMSNorm, swiglu


class Linear(nn.Module):
    """x W^T without bias; W is kept in fp32 and cast to the precision of x."""

    def __init__(self, d_in: int, d_out: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.std = scale / math.sqrt(d_in)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Positions(NamedTuple):
    """What attention knows of where tokens stand: the same in every layer."""

    mask_b1tt: Tensor
    rotation: tuple[Tensor, Tensor]
    fused: bool  # attention in torch's one call, not in plain products

    @classmethod
    def of(
        cls,
        segments_bt: Tensor,
        config: AnchorConfig,
        dtype: torch.dtype,
        past: int = 0,
        fused: bool = False,
    ) -> "Positions":
        """Of packed documents [b, t], for the tokens behind the first `past`."""
        rotation = rotary(segments_bt.shape[1], config, dtype, segments_bt.device, past)
        return cls(attention_mask(segments_bt, dtype, past), rotation, fused)


class Attention(nn.Module):
    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width = config.heads * config.head_dim
        self.qkv = Linear(config.d_model, 3 * width)
        self.q_norm, self.k_norm = RMSNorm(width), RMSNorm(width)
        self.out = Linear(width, config.d_model, scale=1 / math.sqrt(2 * config.layers))

    def forward(
        self, x_btd: Tensor, positions: Positions, memory: Attached, past: Past = NO_PAST
    ) -> Tensor:
        qkv_btw = memory.project("qkv", x_btd, self.qkv(x_btd))
        q_bhtk, scaled_bhtk, k_bhtk, v_bhtk = split_heads(
            qkv_btw, self.q_norm, self.k_norm, positions.rotation, self.head_dim
        )
        keys_bhtk, values_bhtk = past.join("keys", k_bhtk), past.join("values", v_bhtk)
        attend = fused_attention if positions.fused else attention
        mixed_bhtk = attend(scaled_bhtk, keys_bhtk, values_bhtk, positions.mask_b1tt)
        mixed_bhtk = memory.mix(q_bhtk, mixed_bhtk)
        mixed_btw = mixed_bhtk.transpose(1, 2).flatten(2)
        return memory.project("out", mixed_btw, self.out(mixed_btw))


def attention(q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, mask_b1tt: Tensor) -> Tensor:
    """Values mixed by the softmax of scaled queries' scores, in plain products."""
    scores_bhtt = q_bhtk @ k_bhtk.transpose(-1, -2)
    scores_bhtt += mask_b1tt
    return scores_bhtt.softmax(-1) @ v_bhtk


def fused_attention(q_bhtk: Tensor, k_bhtk: Tensor, v_bhtk: Tensor, mask_b1tt: Tensor) -> Tensor:
    """The same in torch's one call."""
    return F.scaled_dot_product_attention(q_bhtk, k_bhtk, v_bhtk, attn_mask=mask_b1tt, scale=1.0)


class FFN(nn.Module):
    """SwiGLU: W3 (SiLU(W1 x) * W2 x)."""

    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.d_model, 2 * config.ffn)
        self.down = Linear(config.ffn, config.d_model, scale=1 / math.sqrt(2 * config.layers))

    def forward(self, x: Tensor, memory: Attached) -> Tensor:
        inner = swiglu(memory.project("gate_up", x, self.gate_up(x)))
        return memory.project("down", inner, self.down(inner))


class NoFFN(nn.Module):
    """Adds nothing."""

    def forward(self, x: Tensor, memory: Attached) -> Tensor:
        return torch.zeros_like(x)


class Layer(nn.Module):
    def __init__(self, config: AnchorConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(config.d_model), Attention(config)
        self.ffn_norm = RMSNorm(config.d_model)
        self.ffn: FFN | NoFFN = FFN(config)

    def forward(
        self, x_btd: Tensor, positions: Positions, memory: Attached, past: Past = NO_PAST
    ) -> Tensor:
        x_btd = memory.before_attention(x_btd)
        x_btd = x_btd + self.attention(self.attention_norm(x_btd), positions, memory, past)
        return memory.after_ffn(x_btd, self.ffn_norm(x_btd), self.ffn)


def through(
    layer: nn.Module, x_btd: Tensor, positions: Positions, memory: Attached, past: Past
) -> Tensor:
    """What leaves a layer: a function, so that layers alike are compiled once."""
    y_btd: Tensor = layer(x_btd, positions, memory, past)
    return y_btd


class Anchor(nn.Module):
    """Tokens to last hidden states; `logits` applies the head.

    Layers of `without_ffn` leave the FFN's place to a memory; the other weights are drawn alike.
    """

    def __init__(
        self, config: AnchorConfig, vocab_size: int, seed: int, without_ffn: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(vocab_size, config.d_model))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.d_model)
        self.bare, self.whole = (Attached(),) * config.layers, (NO_PAST,) * config.layers
        self.fused = False  # attention
        self.trained_through: Callable[..., Tensor] = through
        self.head = None if config.tied else nn.Parameter(torch.empty(vocab_size, config.d_model))
        self._initialise(torch.Generator().manual_seed(seed))
        for layer in without_ffn:
            self.layers[layer].ffn = NoFFN()

    def _initialise(self, generator: torch.Generator) -> None:
        tables = [self.embedding] if self.head is None else [self.embedding, self.head]
        for table in tables:
            truncated_normal(table, self.config.d_model**-0.5, generator)
        for module in self.modules():
            if isinstance(module, Linear):
                truncated_normal(module.weight, module.std, generator)

    def compile_trunk(self, backend: str = "inductor") -> None:
        """From now on layers are compiled, with their memory, where gradients are taken.

        Held-out text comes in batches of many shapes, each of which would be compiled anew.
        """
        torch.compiler.reset()  # a worker's earlier runs; too many at once would end the compiling
        self.trained_through = torch.compile(through, backend=backend)

    def forward(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        memory: Sequence[Attached] = (),
        dtype: torch.dtype = torch.float32,
        pasts: Sequence[Past] = (),
    ) -> Tensor:
        """Hidden states [b, t, d] in `dtype`; `memory` has one entry a layer, or none.

        `pasts`, one a layer, leave out the tokens that they keep: t is what is new.
        """
        pasts = pasts or self.whole
        x_btd = F.embedding(tokens_bt[:, pasts[0].length :], self.embedding).to(dtype)
        positions = Positions.of(segments_bt, self.config, dtype, pasts[0].length, self.fused)
        trains = torch.is_grad_enabled()
        for layer, attached, past in zip(self.layers, memory or self.bare, pasts, strict=True):
            step = self.trained_through if trains and attached.compilable else through
            x_btd = step(layer, x_btd, positions, attached, past)
        return self.norm(x_btd)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary, in the precision of `hidden`."""
        return F.linear(
            hidden, (self.embedding if self.head is None else self.head).to(hidden.dtype)
        )


def truncated_normal(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    """In place, cut at three standard deviations."""
    nn.init.trunc_normal_(tensor, std=std, a=-3 * std, b=3 * std, generator=generator)


def attention_mask(segments_bt: Tensor, dtype: torch.dtype, past: int = 0) -> Tensor:
    """Additive [b, 1, t, t]: 0 where a token may look, -inf at the future and other documents.

    The first `past` tokens do not look any more: [b, 1, t - past, t].
    """
    t = segments_bt.shape[1]
    same_btt = segments_bt[:, past:, None] == segments_bt[:, None, :]
    causal_tt = torch.ones(t - past, t, dtype=torch.bool, device=segments_bt.device).tril(past)
    mask_btt = torch.zeros(same_btt.shape, dtype=dtype, device=segments_bt.device)
    return mask_btt.masked_fill_(~(same_btt & causal_tt), -torch.inf)[:, None]
