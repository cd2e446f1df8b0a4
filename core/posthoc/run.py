"""One post-hoc run: the bank of a frozen pretrained model, trained, scored, saved, loaded back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from core.accounting import tree_clusters
from core.checkpoint import load_weights, save_weights
from core.config import DataConfig, Runtime, TrainConfig, TreeConfig, parse_section, save_config
from core.corpus.packages import file_sha256
from core.corpus.prepare import prepare_windows
from core.corpus.windows import SplitWindows
from core.errors import InputError
from core.identity import digest, tree_fingerprint
from core.load import Router
from core.memory_types import GENERIC
from core.model import resolve_precision
from core.posthoc.gguf import smollm2
from core.posthoc.llama import Llama
from core.posthoc.model import (
    Log,
    PostHocModel,
    TextRows,
    ffn_bank,
    mean_loss,
    open_codec,
    train_bank,
)
from core.reading import read_yaml
from core.retrieval.keys import window_keys
from core.section import Count, CountOrZero, RateOrZero, Section
from core.subject import Subject
from core.writing import write_text

BANK = "bank.safetensors"
SAMPLE_SEED = 0  # the scored windows are the same for every run


class PostHocConfig(Section):
    """FFN-memories on a pretrained model. Text, tree and training are those of any run; the model
    reads at most data.seq_len of its own tokens of each window, and train.tokens counts those."""

    model: str  # "smollm2", or a folder with config.json, safetensors and tokenizer.json
    memory: Literal["ffn", "generic"] = "ffn"  # generic: one block of all widths, for all documents
    widths: Annotated[
        tuple[CountOrZero, ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        Field(min_length=1),
    ]
    data: DataConfig = DataConfig()
    tree: TreeConfig = TreeConfig()
    train: TrainConfig = TrainConfig()
    weight_decay: RateOrZero = 0.0  # of fetched rows only
    test_windows: Count = 768
    seed: CountOrZero = 0


def load_posthoc_config(path: Path) -> PostHocConfig:
    """The run that a YAML file describes. Raises InputError with file, key and what is allowed."""
    return parse_section(PostHocConfig, read_yaml(path), str(path))


def posthoc_id(config: PostHocConfig, cache: Path) -> str:
    """12 hex digits over what changes the result: the model's and the corpus' contents, not where
    they lie."""
    changed = config.model_dump(mode="json", exclude_defaults=True, exclude={"model"})
    changed.get("data", {}).pop("corpus", None)
    files = sorted(_folder(config, cache).glob("*.safetensors"))
    weights = [file_sha256(file) for file in files]
    tree = tree_fingerprint(config.data, config.tree)
    return digest({"config": changed, "weights": weights, "tree": tree})


def train_posthoc(
    config: PostHocConfig, runtime: Runtime, folder: Path, on_log: Log
) -> dict[str, float]:
    """Train the bank and return `loss_test_KEY` in nats per token of the pretrained tokenizer.

    Keys prefix, document and off score the same tokens: those behind the prefix key's text. Writes
    config.yaml, bank.safetensors and losses.json to `folder`. Raises InputError for a model that
    cannot be read, a corpus that cannot be had or more widths than levels.
    """
    model = _model(config, runtime)
    windows = prepare_windows(config.data, runtime.cache)
    router = Router.open(config.data, config.tree, runtime.cache, runtime.device)
    rows = _train_rows(config, runtime, windows.split("train"), router)
    train_bank(model, rows, config.train, config.weight_decay, config.seed, on_log)
    split = windows.split("test")
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(split))[: config.test_windows]
    losses = posthoc_losses(model, config, runtime, split, router, order)
    _save(config, model, losses, folder)
    return losses


def posthoc_losses(
    model: PostHocModel,
    config: PostHocConfig,
    runtime: Runtime,
    split: SplitWindows,
    router: Router,
    chosen: NDArray[np.int64],
    keys: Sequence[str] = ("prefix", "document", "off"),
) -> dict[str, float]:
    """`loss_test_KEY` of the `chosen` windows of a split, as `train_posthoc` returns them."""
    codec = open_codec(_folder(config, runtime.cache), config.data.seq_len)
    documents, prefixes = (_texts(split, chosen, part) for part in (None, config.tree.prefix))
    first_n = np.array([len(codec.lead) + len(codec.encode(text)) for text in prefixes])
    read = {key: config.tree.prefix if key == "prefix" else None for key in keys}
    rows = {
        part: TextRows.encode(
            codec, documents, router.route(window_keys(split, config.tree, part, chosen))
        )
        for part in set(read.values())
    }
    return {
        f"loss_test_{key}": mean_loss(model, rows[read[key]], key != "off", first_n) for key in keys
    }


def open_posthoc(folder: Path, runtime: Runtime) -> Subject:
    """A finished post-hoc run, ready to be asked. Raises InputError for a damaged or other bank."""
    config = load_posthoc_config(folder / "config.yaml")
    model, file = _model(config, runtime), folder / BANK
    saved = load_weights(file)
    assert model.bank is not None
    rows = {name: x for name, x in model.bank.state().items() if name.endswith(".rows")}
    if {n: x.shape for n, x in rows.items()} != {n: x.shape for n, x in saved.items()}:
        raise InputError(f"{file}: its blocks are not those of config.yaml; train the run again")
    for name, tensor in rows.items():
        tensor.copy_(saved[name])
    return Subject(
        posthoc_id(config, runtime.cache),
        config.memory,
        model,
        open_codec(_folder(config, runtime.cache), config.data.seq_len),
        Router.open(config.data, config.tree, runtime.cache, runtime.device),
        config.data,
        config.tree,
    )


def _folder(config: PostHocConfig, cache: Path) -> Path:
    return smollm2(cache) if config.model == "smollm2" else Path(config.model)


def _model(config: PostHocConfig, runtime: Runtime) -> PostHocModel:
    llama = Llama.read(_folder(config, runtime.cache), runtime.device)
    generic = config.memory == GENERIC
    clusters, widths = tree_clusters(config.tree.branching), config.widths
    if generic:
        clusters, widths = (1,), (sum(widths),)
    bank = ffn_bank(llama, clusters, widths, config.seed, runtime.device)
    precision = resolve_precision(config.train.precision, runtime.device)
    return PostHocModel(llama, bank, runtime.device, precision, generic)


def _train_rows(
    config: PostHocConfig, runtime: Runtime, split: SplitWindows, router: Router
) -> TextRows:
    """As many windows as training reads, all of them at most; routed by the training key."""
    codec = open_codec(_folder(config, runtime.cache), config.data.seq_len)
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(split))
    tokens = config.train.epoch_tokens or config.train.tokens
    chosen = order[: tokens // config.data.seq_len]
    prefix = config.tree.prefix if config.tree.key == "prefix" else None
    path_nl = router.route(window_keys(split, config.tree, prefix, chosen))
    return TextRows.encode(codec, _texts(split, chosen, None), path_nl)


def _texts(split: SplitWindows, chosen: NDArray[np.int64], prefix: float | None) -> list[str]:
    return [split.key_text(int(window), prefix) for window in chosen]


def _save(
    config: PostHocConfig, model: PostHocModel, losses: dict[str, float], folder: Path
) -> None:
    assert model.bank is not None
    rows = {name: t for name, t in model.bank.state().items() if name.endswith(".rows")}
    save_config(config, folder)
    save_weights(folder / BANK, rows, {"config": config.model_dump_json()})
    write_text(folder / "losses.json", json.dumps(losses))
