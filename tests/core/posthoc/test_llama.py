"""The loaded model against an obvious forward pass, and against transformers where it is there."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.errors import InputError
from core.posthoc.llama import Llama

VALUES: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5_000.0,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "tie_word_embeddings": True,
}


def tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    d, f, k = values["hidden_size"], values["intermediate_size"], values["head_dim"]
    q, kv = values["num_attention_heads"] * k, values["num_key_value_heads"] * k

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])

    found = {"model.embed_tokens.weight": draw(values["vocab_size"], d)}
    if not values["tie_word_embeddings"]:
        found["lm_head.weight"] = draw(values["vocab_size"], d)
    for i in range(values["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (q, d),
            "self_attn.k_proj": (kv, d),
            "self_attn.v_proj": (kv, d),
            "self_attn.o_proj": (d, q),
            "mlp.gate_proj": (f, d),
            "mlp.up_proj": (f, d),
            "mlp.down_proj": (d, f),
        }.items():
            found[f"model.layers.{i}.{name}.weight"] = draw(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{i}.{name}.weight"] = 1 + draw(d)
    return found | {"model.norm.weight": 1 + draw(d)}


def write_llama(folder: Path, **changes: Any) -> Path:
    """A random model in the usual format, in two files and an index."""
    values = VALUES | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))
    every = tensors(values)
    halves = [dict(list(every.items())[part::2]) for part in (0, 1)]
    index = {}
    for part, half in enumerate(halves, start=1):
        file = f"model-0000{part}-of-00002.safetensors"
        save_file(half, folder / file, {"format": "pt"})
        index |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return folder


def slow_logits(w: dict[str, Tensor], values: dict[str, Any], ids: list[int]) -> Tensor:
    """One position and one head at a time; a rotation is a product of complex numbers."""
    heads, kv_heads, k = (
        values[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return gain * x / torch.sqrt((x * x).mean() + values["rms_norm_eps"])

    def turned(vector: Tensor, position: int) -> Tensor:
        pairs = torch.complex(vector[: k // 2], vector[k // 2 :])
        speed = values["rope_theta"] ** (-torch.arange(0, k, 2, dtype=torch.float64) / k)
        pairs = pairs * torch.polar(torch.ones_like(speed), speed * position)
        return torch.cat((pairs.real, pairs.imag))

    x = [w["model.embed_tokens.weight"][i] for i in ids]
    for layer in range(values["num_hidden_layers"]):
        p = {
            name.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): tensor
            for name, tensor in w.items()
            if name.startswith(f"model.layers.{layer}.")
        }
        normed = [norm(v, p["input_layernorm"]) for v in x]
        queries, keys, values_ = (
            [(p[f"self_attn.{part}_proj"] @ v).view(-1, k) for v in normed] for part in "qkv"
        )
        for t in range(len(ids)):
            mixed = []
            for head in range(heads):
                shared = head // (heads // kv_heads)
                query = turned(queries[t][head], t)
                scores = torch.stack(
                    [query @ turned(keys[s][shared], s) / math.sqrt(k) for s in range(t + 1)]
                )
                weights = torch.exp(scores) / torch.exp(scores).sum()
                mixed.append(sum(weights[s] * values_[s][shared] for s in range(t + 1)))
            x[t] = x[t] + p["self_attn.o_proj"] @ torch.cat(mixed)
            n = norm(x[t], p["post_attention_layernorm"])
            gate = p["mlp.gate_proj"] @ n
            inner = gate * torch.sigmoid(gate) * (p["mlp.up_proj"] @ n)
            x[t] = x[t] + p["mlp.down_proj"] @ inner
    head = w["model.embed_tokens.weight" if values["tie_word_embeddings"] else "lm_head.weight"]
    return torch.stack([head @ norm(v, w["model.norm.weight"]) for v in x])


def logits(llama: Llama, ids: list[int]) -> Tensor:
    tokens = torch.tensor([ids])
    hidden = llama(tokens, torch.zeros_like(tokens), None, torch.float32)
    return (hidden @ llama.head_vd.T)[0]


IDS = [3, 17, 17, 42, 0, 9, 31, 8]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_logits_equal_an_obvious_forward(tmp_path: Path, tied: bool, kv_heads: int) -> None:
    changes = {"tie_word_embeddings": tied, "num_key_value_heads": kv_heads}
    llama = Llama.read(write_llama(tmp_path / "m", **changes))
    doubles = {name: tensor.double() for name, tensor in llama.weights.items()}
    expected = slow_logits(doubles, VALUES | changes, IDS)
    assert (logits(llama, IDS) - expected).abs().max() < 1e-4
    assert expected.std() > 0.3


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_transformers(tmp_path: Path, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    folder = write_llama(tmp_path / "m", tie_word_embeddings=tied)
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = reference(torch.tensor([IDS])).logits[0]
    assert (logits(Llama.read(folder), IDS) - expected).abs().max() < 1e-4


def test_newer_files_keep_the_base_under_rope_parameters(tmp_path: Path) -> None:
    rope = {"rope_theta": 5_000.0, "rope_type": "default"}
    old = Llama.read(write_llama(tmp_path / "old"))
    new = Llama.read(write_llama(tmp_path / "new", rope_theta=None, rope_parameters=rope))
    assert torch.equal(logits(old, IDS), logits(new, IDS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', allowed is 'llama'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type is 'llama3'"),
        ({"vocab_size": 51}, "is missing or not of shape"),
        ({"num_hidden_layers": 2, "intermediate_size": 32}, "is missing or not of shape"),
    ],
)
def test_what_would_be_misread_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_llama(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(VALUES | changes))
    with pytest.raises(InputError, match=message):
        Llama.read(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give a folder with config\.json"):
        Llama.read(tmp_path)
    folder = write_llama(tmp_path / "m")
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="is missing"):
        Llama.read(folder)
