"""The config refuses what it does not know, in one line that says what is allowed."""

from pathlib import Path
from typing import Any

import pytest

from core.config import RunConfig, load_config, parse_config
from core.errors import InputError

FROZEN = {"mode": "frozen", "start": {"tokens": 1e6, "lr": 0.1}}
FFN = {"type": "ffn", "widths": [1]}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"memry": {}}, "memry: unknown key; did you mean memory?"),
    ({"train": {"learning_rate": 1.0}}, "train.learning_rate: unknown key"),
    ({"train": {"lr": "fast"}}, "train.lr = 'fast'"),
    ({"train": {"lr": -1.0}}, "train.lr = -1.0: input should be greater than 0"),
    ({"train": {"lr": float("nan")}}, "train.lr = nan"),
    ({"train": {"tokens": 1.5}}, "train.tokens = 1.5"),
    ({"train": {"tokens": 100}}, "train.tokens 100 is less than one step"),
    ({"train": {"epoch_tokens": 100}}, "train.epoch_tokens 100 is less than one step"),
    ({"train": {"accumulate": 3}}, "accumulate must divide batch_size (16)"),
    ({"train": {"warmup": 0.8, "decay": 0.3}}, "warmup + decay"),
    ({"train": {"mode": "warm"}}, "mode warm needs start"),
    ({"train": {"start": {"tokens": 9, "lr": 0.1}}}, "mode joint takes no start"),
    ({"train": {"tree_part": [0]}}, "tree_part needs mode frozen"),
    ({"train": FROZEN}, "nothing to train without a memory.type"),
    ({"train": {**FROZEN, "tree_part": [1, 0]}}, "must ascend"),
    ({"train": {**FROZEN, "tree_part": [4]}, "memory": FFN}, "level 1 has not; it has 0 to 3"),
    (
        {"train": {**FROZEN, "tree_part": [0]}, "memory": {**FFN, "generic_mix": 0.1}},
        "without generic_mix",
    ),
    (
        {"train": FROZEN, "memory": {"type": "moe", "experts": 4, "top_k": 1}},
        "memory.type moe replaces FFNs",
    ),
    ({"train": {**FROZEN, "start": {"tokens": 9, "lr": 0.1}}, "memory": FFN}, "train.start.tokens"),
    ({"train": {"schedule": "linear"}}, "'wsd' or 'cosine'"),
    ({"seed": True}, "seed = True"),
    ({"seed": -1}, "seed = -1"),
    ({"anchor": "d65"}, "size 'd65' is unknown; allowed: d16, d24, d32"),
    ({"anchor": {"size": "d64", "laiers": 2}}, "anchor.laiers: unknown key; did you mean layers?"),
    ({"anchor": {"layers": 2}}, "anchor.d_model: missing"),
    ({"anchor": {"size": "d64", "head_dim": 15}}, "head_dim must be even"),
    ({"memory": {"type": "ffm"}}, "memory.type = 'ffm': unknown type; allowed: none, generic, ffn"),
    (
        {"memory": {"type": "ffn", "block": "kv", "widths": [1]}},
        "type ffn takes no block; allowed: widths",
    ),
    ({"memory": {"type": "generic", "block": "fnn", "widths": [1]}}, "unknown block; allowed: ffn"),
    ({"memory": {"generic_mix": 0.5}}, "type none takes no generic_mix"),
    ({"memory": {"type": "generic", "widths": [1], "generic_mix": 0.5}}, "takes no generic_mix"),
    ({"memory": {"type": "ffn", "widths": [1], "generic_mix": "1/0"}}, "memory.generic_mix"),
    (
        {"memory": {"type": "ffn", "widths": [1], "keys": 9}},
        "type ffn takes no keys; allowed: widths",
    ),
    ({"memory": {"type": "pkm", "keys": 9, "heads": 2}}, "type pkm needs top_k"),
    ({"memory": {"type": "pkm", "keys": 4, "heads": 2, "top_k": 5}}, "above the 4 keys"),
    ({"memory": {"type": "moe", "experts": 4, "top_k": 5}}, "above the 4 experts"),
    ({"memory": {"type": "moe", "experts": 4, "top_k": 2, "widths": [1]}}, "takes no widths"),
    ({"memory": {"type": "ngram", "rows": 5, "heads": 2, "row_dim": 4}}, "fewer than 4 primes"),
    ({"memory": {"type": "ffn", "widths": [1], "fetched": 9}}, "widths and fetched are given"),
    ({"memory": {"type": "ffn", "fetched": 900}}, "shape goes with fetched or bank"),
    ({"memory": {"type": "ffn", "widths": [1], "shape": [1]}}, "shape goes with fetched or bank"),
    ({"memory": {"type": "ffn", "fetched": 90, "shape": [4, 1]}}, "takes 192"),
    ({"memory": {"type": "ffn", "fetched": 900, "shape": [4, 1, 1]}}, "shape has 3 levels"),
    ({"memory": {"type": "ffn", "widths": [1], "placement": "top"}}, "allowed: uniform, early"),
    ({"memory": {"type": "ffn", "widths": [1], "placement": [1, 0]}}, "must ascend"),
    ({"memory": {"type": "ffn", "widths": [1], "placement": [0, 2]}}, "anchor's layers 0 to 1"),
    ({"memory": {"type": "ffn", "widths": [1], "placement": "late-3"}}, "anchor's layers 0 to 1"),
    ({"memory": {"type": "ffn"}}, "needs at least one width above 0"),
    ({"memory": {"type": "ffn", "widths": [0, 0]}}, "needs at least one width above 0"),
    ({"memory": {"widths": [4]}}, "type none takes no widths"),
    ({"memory": {"type": "ffn", "widths": [4, 2, 1]}}, "has 3 levels, tree.branching has 2"),
    ({"tree": {"branching": []}}, "tree.branching"),
    ({"tree": {"branching": [1]}}, "tree.branching.0 = 1"),
    ({"tree": {"embedder": "bert"}}, "'tfidf', 'minilm', 'minilm-words' or 'random'"),
    ({"data": {"validation": 0.3, "test": 0.3}}, "must stay below 0.5"),
    ({"data": {"seq_len": 16, "min_tokens": 32}}, "min_tokens must be at most seq_len"),
    ({"data": {"vocab_size": 70000}}, "data.vocab_size = 70000"),
    ({"data": {"corpus": []}}, "data.corpus"),
    ({"data": "default"}, "data = 'default'"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_config({"anchor": "d16", **values}, "bad.yaml")
    assert str(error.value).startswith("bad.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"anchor: [d16", "not valid YAML"),
        (b"- d16", "holds list"),
        (b"anchor: \xff\xfe", "UTF-8"),
        (b"seed: 1\nseed: 2", "stands twice"),
        (b"a: &x [1, 2]\nb: *x", "aliases"),
        (b"{}", "anchor: missing"),
    ],
)
def test_refuses_file(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "absent.yaml")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("anchor: d16\ntrain: {tokens: 2e6, lr: 3e-3, weight_decay: 0}\n")
    config = load_config(path)
    assert (config.train.tokens, config.train.lr, config.train.weight_decay) == (
        2_000_000,
        3e-3,
        0.0,
    )


def test_size_name_fills_only_what_is_not_given() -> None:
    config = parse_config({"anchor": {"size": "d64", "layers": 7}}, "x")
    assert (config.anchor.layers, config.anchor.d_model) == (7, 64)


@pytest.mark.parametrize(
    ("size", "widths"),
    [
        # d16 has 2 layers, so a unit of width is 96 parameters; branching (4, 4)
        ({"fetched": 960, "shape": [4, 1]}, (8, 2)),
        ({"fetched": 1000, "shape": [4, 1]}, (8, 2)),
        ({"bank": 96 * (8 * 4 + 2 * 16), "shape": [4, 1]}, (8, 2)),
        ({"bank": "96 + generic", "shape": [0, 1]}, (0, 3)),
    ],
)
def test_widths_follow_from_a_size(size: dict[str, Any], widths: tuple[int, ...]) -> None:
    if size.get("bank") == "96 + generic":
        size = {**size, "bank": 96 * 3 * 17, "generic_mix": "1/17"}
    sized = parse_config({"anchor": "d16", "memory": {"type": "ffn", **size}}, "x")
    mix = {k: v for k, v in size.items() if k == "generic_mix"}
    given = {"type": "ffn", "widths": list(widths), **mix}
    assert sized == parse_config({"anchor": "d16", "memory": given}, "x")
    assert sized.memory.fetched is sized.memory.bank is None


def test_resolved_config_reads_back_equal() -> None:
    config = parse_config({"anchor": "d16", "memory": {"type": "ffn", "widths": [4, 2]}}, "x")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert parse_config(config.model_dump(mode="json"), "x") == config
