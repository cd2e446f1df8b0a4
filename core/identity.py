"""The run id: a hash over what changes the result, and over nothing else.

It covers the config (fields at their default are left out, so a new field whose default keeps the
old meaning changes no id), the fingerprints of corpus, tokenizer and tree, and RECIPE. Device,
threads, folders, grid and arm names do not enter. Fingerprints hash the *inputs* of each stage
(pinned packages or file contents, settings, stage version), so an id is known before any data is
prepared.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from core.config import DataConfig, RunConfig, TreeConfig
from core.corpus.sources import fingerprint_sources

# Raise when the numerics of training or evaluation change: old records then count as other runs.
RECIPE = 2
# Raise when the output of a data stage changes for the same input.
CORPUS_VERSION = 2
TOKENIZER_VERSION = 1
TREE_VERSION = 1


def digest(value: Mapping[str, Any]) -> str:
    """12 hex digits of SHA-256 over canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=256)
def corpus_fingerprint(data: DataConfig) -> str:
    """Identifies the cleaned, grouped and split documents."""
    settings = data.model_dump(include={"validation", "test", "duplicate_jaccard", "split_seed"})
    sources = fingerprint_sources(data.corpus)
    return digest({"sources": sources, "settings": settings, "version": CORPUS_VERSION})


@lru_cache(maxsize=256)
def windows_fingerprint(data: DataConfig) -> str:
    """Identifies tokenizer and windows."""
    settings = data.model_dump(include={"vocab_size", "seq_len", "min_tokens"})
    return digest(
        {"corpus": corpus_fingerprint(data), "settings": settings, "version": TOKENIZER_VERSION}
    )


@lru_cache(maxsize=256)
def tree_fingerprint(data: DataConfig, tree: TreeConfig) -> str:
    """Identifies the cluster tree and every window's paths."""
    return digest(
        {
            "windows": windows_fingerprint(data),
            "tree": tree.model_dump(mode="json"),
            "version": TREE_VERSION,
        }
    )


def run_id(config: RunConfig) -> str:
    """12 hex digits; equal for two runs exactly when they give the same result."""
    changed = config.model_dump(mode="json", exclude_defaults=True)
    changed.get("data", {}).pop(
        "corpus", None
    )  # its fingerprint stands for it, wherever the files lie
    return digest(
        {
            "config": changed,
            "tree": tree_fingerprint(config.data, config.tree),
            "recipe": RECIPE,
        }
    )
