"""A pretrained Llama-like model as a frozen anchor: RMSNorm, RoPE, grouped queries, SwiGLU.

Read from a local folder in the usual format: config.json, one or several safetensors files, and
tokenizer.json. Shape letters: b batch, t time, d model, h heads, k head dim, f FFN, v vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.anchor import Positions
from core.checkpoint import load_weights
from core.config import AnchorConfig
from core.errors import InputError
from core.heads import rotate
from core.memory.base import Attached
from core.past import NO_PAST, Past

# The matrices of a layer, by what memory types call them.
_MATRICES = {
    **{part: f"self_attn.{part}_proj" for part in "qkvo"},
    **{part: f"mlp.{part}_proj" for part in ("gate", "up", "down")},
}
# What the forward pass here does; a model that asks for something else is refused, not misread.
_SUPPORTED = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
}


@dataclass(frozen=True)
class LlamaConfig:
    """The anchor's shape, and what an anchor of our own has no number for."""

    shape: AnchorConfig
    kv_heads: int  # each serves heads / kv_heads query heads
    vocab_size: int
    norm_eps: float
    context: int  # tokens the model was trained to see

    @classmethod
    def read(cls, path: Path) -> "LlamaConfig":
        """From config.json. Raises InputError where it is missing or asks for other parts."""
        values = _read_json(path)
        _refuse_others(path, values)
        heads = values["num_attention_heads"]
        rope = values.get("rope_parameters") or values
        shape = AnchorConfig(
            layers=values["num_hidden_layers"],
            d_model=values["hidden_size"],
            heads=heads,
            head_dim=values.get("head_dim") or values["hidden_size"] // heads,
            ffn=values["intermediate_size"],
            tied=values.get("tie_word_embeddings", False),
            rope_base=rope.get("rope_theta", 10_000.0),
        )
        return cls(
            shape,
            values.get("num_key_value_heads") or heads,
            values["vocab_size"],
            values["rms_norm_eps"],
            values["max_position_embeddings"],
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); give a folder with config.json and safetensors"
        ) from None
    return values


def _refuse_others(path: Path, values: dict[str, Any]) -> None:
    for key, allowed in _SUPPORTED.items():
        if values.get(key, allowed[0]) not in allowed:
            raise InputError(
                f"{path}: {key} is {values[key]!r}, allowed is {allowed[0]!r}; give a plain "
                "Llama-like model"
            )
    rope_type = (values.get("rope_parameters") or {}).get("rope_type", "default")
    if rope_type != "default":
        raise InputError(f"{path}: rope_type is {rope_type!r}, allowed is 'default'; give another")


class Llama:
    """Tokens to last hidden states, by weights under their usual names; nothing is trained."""

    def __init__(self, config: LlamaConfig, weights: dict[str, Tensor]) -> None:
        self.config, self.weights = config, weights

    @classmethod
    def read(cls, folder: Path, device: str = "cpu") -> "Llama":
        """The model of a folder, in fp32. Raises InputError for missing or odd tensors."""
        config = LlamaConfig.read(folder / "config.json")
        weights = {
            name: tensor.to(device, torch.float32)
            for file in sorted(folder.glob("*.safetensors"))
            for name, tensor in load_weights(file).items()
        }
        shapes = _shapes(config)
        wrong = [n for n, s in shapes.items() if n not in weights or tuple(weights[n].shape) != s]
        if wrong:
            raise InputError(
                f"{folder}: tensor {wrong[0]} is missing or not of shape {shapes[wrong[0]]}; "
                "give the model's whole folder"
            )
        return cls(config, weights)

    @property
    def head_vd(self) -> Tensor:
        tied = self.config.shape.tied
        return self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"]

    def __call__(
        self,
        tokens_bt: Tensor,
        segments_bt: Tensor,
        memory: Sequence[Attached] | None,
        dtype: torch.dtype,
        pasts: Sequence[Past] = (),
    ) -> Tensor:
        """Hidden states [b, t, d]; `memory` has one entry a layer, None: the bare model.

        `pasts`, one a layer, leave out the tokens that they keep: t is what is new.
        """
        pasts = pasts or (NO_PAST,) * self.config.shape.layers
        new_bt = tokens_bt[:, pasts[0].length :]
        x_btd = F.embedding(new_bt, self.weights["model.embed_tokens.weight"]).to(dtype)
        positions = Positions.of(segments_bt, self.config.shape, dtype, pasts[0].length)
        for index, past in enumerate(pasts):
            name = f"model.layers.{index}"
            normed_btd = self._norm(x_btd, f"{name}.input_layernorm")
            x_btd = x_btd + self._attend(normed_btd, positions, f"{name}.self_attn", past)
            normed_btd = self._norm(x_btd, f"{name}.post_attention_layernorm")
            attached = memory[index] if memory else Attached()
            x_btd = attached.after_ffn(x_btd, normed_btd, partial(self._ffn, f"{name}.mlp"))
        return self._norm(x_btd, "model.norm")

    def merged(self, memory: Sequence[Attached], dtype: torch.dtype) -> "Llama":
        """The model with each layer's memory in its matrices, which are kept in `dtype`."""
        weights = dict(self.weights)
        for index, attached in enumerate(memory):
            for part, matrix in _MATRICES.items():
                name = f"model.layers.{index}.{matrix}.weight"
                weights[name] = attached.merge(part, weights[name]).to(dtype)
        return Llama(self.config, weights)

    def _attend(self, x_btd: Tensor, positions: Positions, name: str, past: Past) -> Tensor:
        q_bhtk, k_bhtk, v_bhtk = (
            self._linear(x_btd, f"{name}.{part}_proj")
            .unflatten(-1, (-1, self.config.shape.head_dim))
            .transpose(1, 2)
            for part in "qkv"
        )
        shared = self.config.shape.heads // self.config.kv_heads
        k_bhtk = past.join("keys", rotate(k_bhtk, positions.rotation))
        v_bhtk = past.join("values", v_bhtk)
        k_bhtk = k_bhtk.repeat_interleave(shared, dim=1)
        scores_bhtt = rotate(q_bhtk, positions.rotation) @ k_bhtk.transpose(-1, -2)
        scores_bhtt = scores_bhtt * self.config.shape.head_dim**-0.5 + positions.mask_b1tt
        weight_bhtt = scores_bhtt.softmax(-1)
        mixed_bhtk = weight_bhtt @ v_bhtk.repeat_interleave(shared, dim=1)
        return self._linear(mixed_bhtk.transpose(1, 2).flatten(2), f"{name}.o_proj")

    def _ffn(self, name: str, x_btd: Tensor, memory: Attached) -> Tensor:
        gate_btf = F.silu(self._linear(x_btd, f"{name}.gate_proj"))
        return self._linear(gate_btf * self._linear(x_btd, f"{name}.up_proj"), f"{name}.down_proj")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"].to(x.dtype))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        gain_d = self.weights[f"{name}.weight"].to(x.dtype)
        return F.rms_norm(x, gain_d.shape, gain_d, self.config.norm_eps)


def _shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """The tensors that a model of this configuration has."""
    shape = config.shape
    d, f, v = shape.d_model, shape.ffn, config.vocab_size
    q, kv = shape.heads * shape.head_dim, config.kv_heads * shape.head_dim
    of_layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (q, d),
        "self_attn.k_proj": (kv, d),
        "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, q),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (f, d),
        "mlp.up_proj": (f, d),
        "mlp.down_proj": (d, f),
    }
    tables = {"model.embed_tokens": (v, d), "model.norm": (d,)}
    head = {} if shape.tied else {"lm_head": (v, d)}
    layers = {
        f"model.layers.{i}.{name}": size
        for i in range(shape.layers)
        for name, size in of_layer.items()
    }
    return {f"{name}.weight": size for name, size in (tables | head | layers).items()}
