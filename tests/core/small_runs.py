"""A tiny corpus that states facts, and tiny runs on it, for tests of what reads a finished run."""

import json
import random
from pathlib import Path
from typing import Any

from core.config import RunConfig, Runtime, parse_config
from core.identity import run_id
from core.train import train_run

ELEMENTS = {"gold": 79, "iron": 26, "tin": 50, "lead": 82, "neon": 10, "zinc": 30}
CITIES = {"Paris": "France", "Lyon": "France", "Kyoto": "Japan", "Lima": "Peru", "Oslo": "Norway"}
FILLER = {
    "metal": ["ore", "melts", "heavy", "alloy", "furnace", "shiny", "atoms", "mine"],
    "town": ["river", "streets", "harbour", "market", "people", "old", "bridge", "square"],
}


MEMORIES: dict[str, dict[str, Any]] = {
    "none": {},
    "generic": {"type": "generic", "widths": [4]},
    **{
        name: {"type": name, "widths": [3, 2]}
        for name in ("ffn", "kv", "lora-qk", "lora-vo", "lora-ffn")
    },
    "pkm": {"type": "pkm", "keys": 6, "heads": 2, "top_k": 3},
    "ngram": {"type": "ngram", "rows": 90, "heads": 2, "row_dim": 4},
    "moe": {"type": "moe", "experts": 3, "top_k": 2},
}


def write_corpus(folder: Path, copies: int = 40) -> Path:
    """Each fact stated `copies` times in texts of its own kind of words."""
    draw = random.Random(0)
    rows = []
    for copy in range(copies):
        for name, number in ELEMENTS.items():
            statement = f"The atomic number of {name} is {number}."
            rows.append({"title": f"{name} {copy}", "text": f"{statement} {_words(draw, 'metal')}"})
        for city, country in CITIES.items():
            statement = f"{city} is a city in {country}."
            rows.append({"title": f"{city} {copy}", "text": f"{statement} {_words(draw, 'town')}"})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _words(draw: random.Random, kind: str) -> str:
    return " ".join(draw.choice(FILLER[kind]) + str(draw.randrange(9)) for _ in range(12))


def fact_config(corpus: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "anchor": "d16",
        "data": {
            "corpus": [str(corpus)],
            "vocab_size": 400,
            "seq_len": 48,
            "min_tokens": 8,
            "validation": 0.1,
            "test": 0.1,
            "duplicate_jaccard": 0.99,
        },
        "tree": {"branching": [2, 2], "dimensions": 8},
        "memory": {"type": "ffn", "widths": [8, 4]},
        "train": {"tokens": 12_000, "batch_size": 4, "precision": "fp32"},
        "evaluate": {"validation_windows": 8, "test_windows": 8},
    }
    return parse_config({**values, **changes}, "test")


def train(config: RunConfig, results: Path) -> Path:
    """The folder of a finished run."""
    folder = results / "runs" / run_id(config)
    train_run(config, Runtime(results=results), folder, lambda _: None)
    return folder
