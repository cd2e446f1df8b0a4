"""Heads as attention takes them: on a CPU in bf16 by compiled loops, elsewhere by torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import kernels
from core.config import AnchorConfig
from core.pointwise import EPSILON, RMSNorm, array, bits, by_loops

Rotation = tuple[Tensor, Tensor]  # cosines and signed sines [t, k]
Heads = tuple[Tensor, Tensor, Tensor, Tensor]
NONE = np.empty((0, 0, 0, 0), np.uint16)  # heads that nobody takes


def split_heads(
    qkv_btw: Tensor, q_norm: RMSNorm, k_norm: RMSNorm, rotation: Rotation, head_dim: int
) -> Heads:
    """Heads [b, h, t, k] of queries, keys and values that come side by side, w = 3 h k.

    Normed queries; the same rotated and divided by sqrt(k); normed and rotated keys; values.
    """
    if by_loops(qkv_btw.device, qkv_btw.dtype):
        given = qkv_btw.contiguous(), q_norm.gain, k_norm.gain, rotation, head_dim
        heads: Heads = _Heads.apply(*given)  # type: ignore[no-untyped-call]
        return heads
    return split_heads_by_passes(qkv_btw, q_norm, k_norm, rotation, head_dim)


def split_heads_by_passes(
    qkv_btw: Tensor, q_norm: RMSNorm, k_norm: RMSNorm, rotation: Rotation, head_dim: int
) -> Heads:
    """By torch's operations."""
    q, k, v = qkv_btw.chunk(3, dim=-1)
    q_bhtk, k_bhtk = _split(q_norm(q), head_dim), _split(k_norm(k), head_dim)
    scaled_bhtk = rotate(q_bhtk, rotation).mul_(head_dim**-0.5)
    return q_bhtk, scaled_bhtk, rotate(k_bhtk, rotation), _split(v, head_dim)


def _split(x_btw: Tensor, head_dim: int) -> Tensor:
    return x_btw.unflatten(-1, (-1, head_dim)).transpose(1, 2).contiguous()


def rotary(
    t: int, config: AnchorConfig, dtype: torch.dtype, device: torch.device, past: int = 0
) -> Rotation:
    """Cosines and signed sines [t - past, k] of RoPE at positions `past` to t, half-split layout.

    Source: arXiv 2104.09864.
    """
    half = config.head_dim // 2
    pair_k = torch.arange(half, dtype=torch.float64, device=device)
    position_t = torch.arange(past, t, dtype=torch.float64, device=device)
    angle_tk = torch.outer(position_t, config.rope_base ** (-pair_k / half))
    cos_tk, sin_tk = angle_tk.cos().to(dtype), angle_tk.sin().to(dtype)
    return cos_tk.repeat(1, 2), torch.cat((-sin_tk, sin_tk), dim=-1)


def rotate(x_bhtk: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair (i, i + k/2) by its position's angle."""
    cos_tk, sin_tk = rotation
    return torch.addcmul(x_bhtk * cos_tk, x_bhtk.roll(x_bhtk.shape[-1] // 2, -1), sin_tk)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_gain: Tensor, k_gain: Tensor, rotation: Rotation, head_dim: int
    ) -> Heads:
        b, t, w = *qkv.shape[:2], len(q_gain)
        normed, query, key = (qkv.new_empty(b, w // head_dim, t, head_dim) for _ in range(3))
        inverse_2bt = q_gain.new_empty(2, b, t)
        ctx.save_for_backward(qkv, q_gain, k_gain, inverse_2bt)
        ctx.set_materialize_grads(False)  # few memories take normed queries
        ctx.scale, ctx.rotation = head_dim**-0.5, rotation
        q_inverse, k_inverse = array(inverse_2bt)
        given = bits(qkv), _by_halves(*rotation), EPSILON
        of_queries = *given, 0, array(q_gain), ctx.scale, q_inverse
        of_keys = *given, w, array(k_gain), 1.0, k_inverse
        kernels.rotated_heads(*of_queries, bits(normed), bits(query))
        kernels.rotated_heads(*of_keys, NONE, bits(key))
        return normed, query, key, _split(qkv[..., 2 * w :], head_dim)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        qkv, q_gain, k_gain, inverse_2bt = ctx.saved_tensors
        normed, query, key, value = grads
        assert query is not None and key is not None and value is not None  # attention takes them
        dqkv, dq_gain, dk_gain = torch.empty_like(qkv), *map(torch.zeros_like, (q_gain, k_gain))
        q_inverse, k_inverse = array(inverse_2bt)
        (cos_tk, sin_tk), w = ctx.rotation, len(q_gain)
        given = bits(qkv), bits(dqkv), _by_halves(cos_tk, sin_tk.roll(sin_tk.shape[1] // 2, -1))
        taken = NONE if normed is None else bits(normed.contiguous())
        of_queries = *given, 0, array(q_gain), ctx.scale, q_inverse, taken
        of_keys = *given, w, array(k_gain), 1.0, k_inverse, NONE
        kernels.rotated_heads_backward(*of_queries, bits(query.contiguous()), array(dq_gain))
        kernels.rotated_heads_backward(*of_keys, bits(key.contiguous()), array(dk_gain))
        by_tokens = value.transpose(1, 2)
        dqkv[..., 2 * w :].view(by_tokens.shape).copy_(by_tokens)
        return dqkv, dq_gain, dk_gain, None, None


def _by_halves(cos_tk: Tensor, sin_tk: Tensor) -> NDArray[np.float32]:
    """[3, t, k]: cosines, and the sines of the first half of a head and of the second, else 0."""
    first_tk, second_tk = sin_tk.clone(), sin_tk.clone()
    half = sin_tk.shape[1] // 2
    first_tk[:, half:] = second_tk[:, :half] = 0
    return array(torch.stack((cos_tk, first_tk, second_tk)).float())
