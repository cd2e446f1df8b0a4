"""Counts to the digit: against the paper's printed tables, and against the modules themselves."""

from typing import Any

import pytest

from core.accounting import (
    FlopCounts,
    ParameterCounts,
    block_parameters,
    bytes_per_prompt,
    count_flops,
    count_parameters,
    memory_layers,
    tokens_per_block_parameter,
    training_flops_per_token,
)
from core.config import RunConfig, parse_config
from core.errors import InputError
from core.memory_types import BLOCK_TYPES
from core.model import Model

VOCABULARY = 50_432  # GPT-NeoX's table as padded in the paper

# Source: arXiv 2510.02375, tables 4, 5, 6 and 8, with and without embeddings made one number there.
PAPER_ANCHORS = {
    "160m": 163_510_016,
    "410m": 411_665_408,
    "1.4b": 1_439_893_504,
}
# Table 8 prints millions to one digit.
PAPER_ANCHORS_ROUNDED = {
    "260m": 257.5,
    "320m": 321.7,
    "350m": 347.4,
    "370m": 373.1,
    "390m": 386.0,
    "410m": 411.7,
}
# Source: tables 1 and 2: anchor dimensions (layers x d), widths, fetched in millions, bank in
# billions.
PAPER_BANKS = [
    (35, 512, (256, 64, 16), 18.06, 4.624),
    (24, 1024, (512, 128, 32), 49.55, 12.684),
    (24, 2048, (768, 256, 16), 153.35, 21.139),
    (18, 640, (512, 128, 32), 23.22, 5.945),  # Gemma 3 270M
    (24, 896, (512, 128, 32), 43.35, 11.098),  # Qwen 2.5 0.5B
    (16, 2048, (768, 256, 16), 102.24, 14.093),  # Llama 3.2 1B; its 32 in the appendix is an error
]


def paper_anchor(size: str) -> RunConfig:
    return parse_config({"anchor": size, "data": {"vocab_size": VOCABULARY}}, size)


@pytest.mark.parametrize(("size", "printed"), PAPER_ANCHORS.items())
def test_anchors_to_the_digit(size: str, printed: int) -> None:
    assert count_parameters(paper_anchor(size)).total == printed


@pytest.mark.parametrize(("size", "millions"), PAPER_ANCHORS_ROUNDED.items())
def test_anchors_of_table_8(size: str, millions: float) -> None:
    assert round(count_parameters(paper_anchor(size)).total / 1e6, 1) == millions


@pytest.mark.parametrize(("layers", "d_model", "widths", "fetched", "bank"), PAPER_BANKS)
def test_banks(
    layers: int, d_model: int, widths: tuple[int, ...], fetched: float, bank: float
) -> None:
    config = parse_config(
        {
            "anchor": {"size": "160m", "layers": layers, "d_model": d_model},
            "tree": {"branching": [16, 16, 16, 16]},
            "memory": {"type": "ffn", "widths": [*widths, 0]},
        },
        "paper",
    )
    counts = count_parameters(config)
    assert round(counts.fetched / 1e6, 2) == fetched
    assert round(counts.bank / 1e9, 3) == bank


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "memory",
    [
        {},
        *({"type": name, "widths": [5, 3]} for name in BLOCK_TYPES),
        *({"type": "generic", "block": name, "widths": [5, 3]} for name in BLOCK_TYPES),
        {"type": "ffn", "widths": [5, 3], "generic_mix": "1/17"},
        {"type": "kv", "widths": [6, 3], "placement": [0, 1, 3]},
    ],
)
def test_counts_are_the_modules(tied: bool, memory: dict[str, Any]) -> None:
    config = parse_config(
        {
            "anchor": {"size": "d32", "tied": tied},
            "memory": memory,
            "tree": {"branching": [3, 2]},
            "data": {"vocab_size": 300},
        },
        "x",
    )
    model = Model(config, "cpu", "fp32")
    counts = count_parameters(config)
    tables = 1 if tied else 2
    assert counts.embed == tables * 300 * 32
    assert counts.anchor + counts.embed == sum(p.numel() for p in model.anchor.parameters())
    assert counts.bank == _stored(model)
    assert counts.total == counts.anchor + counts.embed + counts.bank
    assert counts.runtime == counts.anchor + counts.fetched


# Parameters of a block of width r, in the letters of the paper: l layers, d hidden, w = h d_h,
# f FFN. Source: arXiv 2510.02375, sec. 2.2 and app. I. d48: l 4, d 48, w 3 x 16, f 128.
@pytest.mark.parametrize(
    ("name", "per_width"),
    [
        ("ffn", 3 * 4 * 48),
        ("kv", 2 * 4 * 3 * 16),
        ("lora-qk", 2 * 4 * (48 + 3 * 16)),
        ("lora-vo", 2 * 4 * (48 + 3 * 16)),
        ("lora-ffn", 3 * 4 * (48 + 128)),
    ],
)
def test_block_sizes_of_the_paper(name: str, per_width: int) -> None:
    memory = {"type": name, "widths": [5, 3]}
    config = parse_config({"anchor": "d48", "memory": memory}, "x")
    assert block_parameters(config) == (5 * per_width, 3 * per_width)
    assert count_flops(config).memory == 2 * 8 * per_width


@pytest.mark.parametrize(
    "memory",
    [
        {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3, "placement": [1, 3]},
        {"type": "ngram", "rows": 90, "heads": 2, "row_dim": 4, "placement": [0, 2]},
        {"type": "moe", "experts": 3, "top_k": 2, "expert_width": 7, "placement": [2]},
        {"type": "moe", "experts": 3, "top_k": 2},
    ],
)
def test_counts_of_tokens_memories_are_the_modules(memory: dict[str, Any]) -> None:
    config = parse_config({"anchor": "d32", "data": {"vocab_size": 300}, "memory": memory}, "x")
    model, counts = Model(config, "cpu", "fp32"), count_parameters(config)
    assert model.token_memory is not None
    modules = sum(p.numel() for p in model.token_memory.parameters())
    tables = sum(table.rows.numel() for table in model.token_memory.tables.values())
    assert counts.bank == modules + tables
    assert counts.anchor + counts.embed == sum(p.numel() for p in model.anchor.parameters())


# d32: 4 layers, d 32, f 88, T 128. Products are 2 FLOP a parameter used, gains aside.
@pytest.mark.parametrize(
    ("memory", "fetched", "flops", "lookups", "prompt"),
    [
        (
            # queries 2 heads x 16 and keys 2 heads x 6 x 16, gate and out; 2 x 3 values of 36
            {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3, "placement": [1]},
            32 * 32 + 2 * 6 * 16 + 2 * 32 * 32 + 6 * 32,
            2 * (32 * 32 + 2 * 6 * 16 + 2 * 32 * 32 + 6 * 32),
            6 * 32,
            2 * 36 * 32,  # 128 tokens may read every slot
        ),
        (
            # 2 orders x 2 heads x 4 values; key and value, 4 taps and 3 gains of 32
            {"type": "ngram", "rows": 97, "heads": 2, "row_dim": 4, "placement": [1]},
            16 + 2 * 16 * 32 + 4 * 32 + 3 * 32,
            2 * (2 * 16 * 32 + 4 * 32),
            16,
            2 * 4 * (97 + 89 + 83 + 79),  # the largest primes up to 97
        ),
        (
            {"type": "moe", "experts": 3, "top_k": 2, "expert_width": 7, "placement": [1]},
            3 * 32 + 2 * 3 * 32 * 7,
            2 * (3 * 32 + 2 * 3 * 32 * 7),
            0,
            2 * 3 * 3 * 32 * 7,
        ),
    ],
)
def test_tokens_memories_by_hand(
    memory: dict[str, Any], fetched: int, flops: int, lookups: int, prompt: int
) -> None:
    config = parse_config({"anchor": "d32", "memory": memory}, "x")
    counted = count_flops(config)
    assert count_parameters(config).fetched == fetched
    assert (counted.memory, counted.lookups - 32) == (flops, lookups)
    assert bytes_per_prompt(config) == prompt
    dense = parse_config({"anchor": "d32"}, "x")
    replaced = 0 if memory["type"] == "ngram" else 3 * 32 * 88
    assert count_flops(dense).anchor - counted.anchor == 2 * replaced


@pytest.mark.parametrize("name", BLOCK_TYPES)
@pytest.mark.parametrize(
    ("placement", "layers"),
    [
        ("uniform", (0, 1, 2, 3, 4, 5)),
        ("early-2", (0, 1)),
        ("middle-2", (2, 3)),
        ("middle-3", (1, 2, 3)),
        ("late", (4, 5)),  # 10/35 of 6
        ("every-3", (2, 5)),
        ([0, 1, 3, 5], (0, 1, 3, 5)),
    ],
)
def test_every_placement_fetches_the_same(
    name: str, placement: str | list[int], layers: tuple[int, ...]
) -> None:
    def count(where: str | list[int]) -> tuple[ParameterCounts, FlopCounts]:
        memory = {"type": name, "widths": [4, 2], "placement": where}
        config = parse_config({"anchor": {"size": "d48", "layers": 6}, "memory": memory}, "x")
        if where == placement:
            assert memory_layers(config) == layers
        return count_parameters(config), count_flops(config)

    assert count(placement) == count("uniform")


def test_widths_that_no_placement_can_hold_are_refused() -> None:
    memory = {"type": "ffn", "widths": [4, 2], "placement": "late-4"}
    with pytest.raises(InputError, match="give multiples of 2") as error:
        parse_config(
            {"anchor": {"size": "d48", "layers": 6}, "memory": {**memory, "widths": [4, 3]}}, "x"
        )
    assert "memory.widths [4, 3] cannot fill placement late-4" in str(error.value)
    parse_config({"anchor": {"size": "d48", "layers": 6}, "memory": memory}, "x")


@pytest.mark.parametrize("name", BLOCK_TYPES)
def test_generic_holds_what_a_type_fetches(name: str) -> None:
    ffn, generic = (
        parse_config({"anchor": "d32", "memory": {**kind, "widths": [5, 3]}}, "x")
        for kind in ({"type": name}, {"type": "generic", "block": name})
    )
    assert count_parameters(ffn).fetched == count_parameters(generic).bank
    assert bytes_per_prompt(ffn) == 2 * count_parameters(ffn).fetched
    assert bytes_per_prompt(generic) == 0
    assert training_flops_per_token(ffn) == training_flops_per_token(generic)


def test_flops_by_hand() -> None:
    """One layer, d 4, one head of 2, ffn 3, vocabulary 300, T 16, memory of width 2."""
    anchor = {"layers": 1, "d_model": 4, "heads": 1, "head_dim": 2, "ffn": 3}
    config = parse_config(
        {
            "anchor": anchor,
            "data": {"vocab_size": 300, "seq_len": 16},
            "tree": {"branching": [2]},
            "memory": {"type": "ffn", "widths": [2]},
        },
        "x",
    )
    flops = count_flops(config)
    assert flops.anchor == 2 * (4 * 4 * 2 + 3 * 4 * 3)
    assert flops.attention == sum(2 * 2 * 2 * seen for seen in range(1, 17)) / 16
    assert flops.head == 2 * 300 * 4
    assert flops.memory == 2 * 3 * 4 * 2
    assert training_flops_per_token(config) == 3 * flops.forward


def test_tokens_per_block_parameter_by_hand() -> None:
    config = parse_config(
        {
            "anchor": "d16",
            "tree": {"branching": [4, 4]},
            "memory": {"type": "ffn", "widths": [2, 1]},
            "train": {"tokens": 96_000},
        },
        "x",
    )
    assert block_parameters(config) == (3 * 2 * 16 * 2, 3 * 2 * 16)
    assert tokens_per_block_parameter(config) == (96_000 / 4 / 192, 96_000 / 16 / 96)


def _stored(model: Model) -> int:
    tables = model.bank.resident().values() if model.bank else ()
    return sum(table.rows.numel() for table in tables)
