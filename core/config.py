"""The one description of a run: strict, frozen, YAML keys = field names.

Every field here changes the result, so every field enters the run id (`core/identity.py`). Where a
run happens (device, threads, folders) is `Runtime`, which no id sees.
"""

import difflib
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from core.errors import InputError
from core.memory_config import MemoryConfig
from core.memory_types import (
    BLOCK_TYPES,
    GENERIC,
    NONE,
    TOKEN_TYPES,
    fit_widths,
    table_rows,
)
from core.placement import place, width_quantum
from core.reading import read_yaml
from core.section import (
    Count,
    CountOrZero,
    Rate,
    RateOrZero,
    Section,
    Share,
    integral,
    number,
    to_tuple,
)
from core.sizes import ANCHOR_SIZES
from core.writing import write_text

S = TypeVar("S", bound=Section)


class DataConfig(Section):
    """Text to windows of tokens. Fitted on the train split alone."""

    # "default", "extended", "hf:NAME" or paths to .txt, .jsonl(.gz), .parquet files or
    # folders of them
    corpus: Annotated[tuple[str, ...], BeforeValidator(to_tuple), Field(min_length=1)] = (
        "default",
    )
    vocab_size: Annotated[int, BeforeValidator(integral), Field(ge=257, le=65_535)] = 4096
    seq_len: Annotated[int, BeforeValidator(integral), Field(ge=16, le=65_536)] = 128  # tokens
    min_tokens: Annotated[int, BeforeValidator(integral), Field(ge=4)] = 16  # shorter windows go
    validation: Share = 0.05  # share of the groups of near-duplicates
    test: Share = 0.05
    duplicate_jaccard: Annotated[float, BeforeValidator(number), Field(gt=0, le=1)] = 0.7
    split_seed: CountOrZero = 0

    @model_validator(mode="before")
    @classmethod
    def _one_corpus(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("corpus"), str):
            return {**values, "corpus": (values["corpus"],)}
        return values

    @model_validator(mode="after")
    def _possible(self) -> "DataConfig":
        if self.validation + self.test >= 0.5:
            raise ValueError("validation + test must stay below 0.5, so that most text trains")
        if self.min_tokens > self.seq_len:
            raise ValueError(f"min_tokens must be at most seq_len ({self.seq_len})")
        return self


class TreeConfig(Section):
    """Windows to cluster paths, one id a level."""

    # minilm-words: the mean of MiniLM's word vectors; random: a control without meaning, whose path
    # is the hash of the document's id
    embedder: Literal["tfidf", "minilm", "minilm-words", "random"] = "tfidf"
    dimensions: Count = 128  # of the SVD after TF-IDF; MiniLM's are 384 whatever stands here
    branching: Annotated[
        tuple[Annotated[int, BeforeValidator(integral), Field(ge=2)], ...],
        BeforeValidator(to_tuple),
        Field(min_length=1, max_length=8),
    ] = (4, 4)
    key: Literal["document", "prefix"] = "document"  # the text that routes a *training* window
    prefix: Share = 0.5  # the share of a window's tokens that the prefix key sees
    seed: CountOrZero = 0


class AnchorConfig(Section):
    """Decoder-only transformer. A `size` name fills the numbers that are not given."""

    layers: Annotated[int, BeforeValidator(integral), Field(gt=0, le=1000)]
    d_model: Count
    heads: Count
    head_dim: Count
    ffn: Count  # inner width of the SwiGLU FFN
    tied: bool = True  # one table for embedding and head
    rope_base: Rate = 100_000.0  # source: arXiv 2510.02375, app. A

    @model_validator(mode="before")
    @classmethod
    def _named_size(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"size": values}
        if not isinstance(values, Mapping) or "size" not in values:
            return values
        size = values["size"]
        if size not in ANCHOR_SIZES:
            raise ValueError(f"size {size!r} is unknown; allowed: {', '.join(ANCHOR_SIZES)}")
        return {**ANCHOR_SIZES[size], **{k: v for k, v in values.items() if k != "size"}}

    @model_validator(mode="after")
    def _possible(self) -> "AnchorConfig":
        if self.head_dim % 2:
            raise ValueError("head_dim must be even: RoPE rotates pairs")
        return self


class StartConfig(Section):
    """The stage that trains the anchor alone; everything else as in the run that it starts."""

    tokens: Count
    lr: Rate


class TrainConfig(Section):
    """One pass of AdamW over `tokens` tokens (more than the text holds = several epochs)."""

    # joint: all from scratch; warm: all, from the anchor that `start` trains; frozen: the memory
    # alone, on that anchor
    mode: Literal["joint", "warm", "frozen"] = "joint"
    start: StartConfig | None = None
    # frozen alone: clusters of level 1 whose subtrees this run trains, none given: all; runs that
    # share out the clusters give banks to merge
    tree_part: Annotated[tuple[CountOrZero, ...], BeforeValidator(to_tuple)] = ()

    tokens: Count = 1_000_000
    # tokens of the text, padding included, that are all there is: epoch after epoch of the same;
    # none given: the whole text
    epoch_tokens: Count | None = None
    batch_size: Count = 16  # windows a step
    accumulate: Count = 1  # micro-batches a step; must divide batch_size
    lr: Rate = 1e-2
    weight_decay: RateOrZero = 0.1  # on matrices of the anchor, not on gains or embeddings
    beta1: Share = 0.9
    beta2: Share = 0.95
    clip: Rate = 1.0  # anchor: global norm; bank: norm of each row, so rows stay independent
    schedule: Literal["wsd", "cosine"] = "wsd"
    warmup: Share = 0.05  # share of the steps
    decay: Share = 0.3  # share of the steps in wsd's linear descent
    final_lr: RateOrZero = 0.1  # end of the schedule as a share of the peak
    precision: Literal["auto", "bf16", "fp32"] = "auto"  # auto: bf16 where the machine has it
    diverged_above: Rate = 2.0  # stop when the loss exceeds this multiple of its starting value

    @model_validator(mode="after")
    def _possible(self) -> "TrainConfig":
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate must divide batch_size ({self.batch_size})")
        if (self.mode == "joint") != (self.start is None):
            raise ValueError(
                f"mode {self.mode} "
                + (
                    "takes no start"
                    if self.start
                    else "needs start, as start: {tokens: 1e6, lr: 1e-2}"
                )
            )
        if self.tree_part and self.mode != "frozen":
            raise ValueError(
                "tree_part needs mode frozen: subtrees are independent on no other anchor"
            )
        if sorted(set(self.tree_part)) != list(self.tree_part):
            raise ValueError("tree_part must ascend without repeats, as [0, 2]")
        if self.warmup + self.decay > 1:
            raise ValueError("warmup + decay must be at most 1")
        if self.final_lr > 1:
            raise ValueError("final_lr is a share of the peak rate, at most 1")
        return self


class EvaluateConfig(Section):
    """How much held-out text is scored."""

    validation_windows: Count = 384  # rates are tuned on them
    test_windows: Count = 768  # results are reported on them


class RunConfig(Section):
    """One run. Refused combinations name the key and what to change."""

    data: DataConfig = DataConfig()
    tree: TreeConfig = TreeConfig()
    anchor: AnchorConfig
    memory: MemoryConfig = MemoryConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seed: CountOrZero = 0

    @model_validator(mode="after")
    def _sized(self) -> "RunConfig":
        """Puts the widths that follow from memory.fetched or memory.bank in their place."""
        memory, quantum = self.memory, self._width_quantum()
        size = memory.fetched or memory.bank
        self._fits_tree("shape" if size else "widths")
        if size:
            block = memory.block if memory.type == GENERIC else memory.type
            unit = BLOCK_TYPES[block].unit(self.anchor) * self.anchor.layers
            clusters = (1,) * len(memory.shape) if memory.fetched else self._blocks_per_level()
            costs = tuple(unit * n for n in clusters[: len(memory.shape)])
            widths = fit_widths(size, costs, memory.shape, quantum)
            changes = {"widths": widths, "fetched": None, "bank": None, "shape": ()}
            self.__dict__["memory"] = memory.model_copy(update=changes)
        elif any(width % quantum for width in memory.widths):
            raise ValueError(
                f"memory.widths {list(memory.widths)} cannot fill placement {memory.placement} "
                f"with what all {self.anchor.layers} layers would hold; give multiples of {quantum}"
            )
        return self

    def _width_quantum(self) -> int:
        sites = len(place(self.memory.placement, self.anchor.layers))
        return width_quantum(self.anchor.layers, sites)

    def _blocks_per_level(self) -> tuple[int, ...]:
        """Blocks of the bank per level of the tree, the mix's generic block among them."""
        branching = self.tree.branching
        extra = 1 if self.memory.generic_mix else 0
        return tuple(prod(branching[: level + 1]) + extra for level in range(len(branching)))

    def _fits_tree(self, field: str) -> None:
        given, levels = len(getattr(self.memory, field)), len(self.tree.branching)
        if given > levels:
            raise ValueError(
                f"memory.{field} has {given} levels, tree.branching has {levels}; "
                f"shorten {field} or add a level to the tree"
            )

    @model_validator(mode="after")
    def _addressable(self) -> "RunConfig":
        """What a memory that tokens address asks of the anchor and of its own sizes."""
        memory = self.memory
        if memory.type == "pkm" and self.anchor.d_model % 4:
            raise ValueError(
                f"memory.type pkm cuts queries of d_model / 2 in halves; anchor.d_model is "
                f"{self.anchor.d_model}, give a multiple of 4"
            )
        if memory.rows and memory.heads:
            tables = 2 * memory.heads
            if len(table_rows(memory.rows, memory.heads)) < tables:
                raise ValueError(
                    f"memory.rows {memory.rows} has fewer than {tables} primes up to it, one a "
                    "table; give more rows or fewer heads"
                )
        return self

    @model_validator(mode="after")
    def _stages(self) -> "RunConfig":
        """What a run that starts from a trained anchor may have as its memory."""
        memory, train = self.memory, self.train
        if train.mode == "frozen" and memory.type == NONE:
            raise ValueError("train.mode frozen leaves nothing to train without a memory.type")
        if train.start and memory.type in TOKEN_TYPES and TOKEN_TYPES[memory.type].replaces_ffn:
            raise ValueError(
                f"memory.type {memory.type} replaces FFNs, and the anchor of train.start learned "
                "with them; take train.mode joint or a type that adds"
            )
        if train.tree_part and (memory.type not in BLOCK_TYPES or memory.generic_mix):
            raise ValueError(
                "train.tree_part needs blocks that one subtree alone trains: allowed are "
                f"memory.type {', '.join(BLOCK_TYPES)} without generic_mix"
            )
        if train.tree_part and train.tree_part[-1] >= self.tree.branching[0]:
            raise ValueError(
                f"train.tree_part {list(train.tree_part)} names a cluster that level 1 has not; "
                f"it has 0 to {self.tree.branching[0] - 1}"
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> "RunConfig":
        step = self.train.batch_size * self.data.seq_len
        stages = {"train.tokens": self.train.tokens}
        if self.train.start:
            stages["train.start.tokens"] = self.train.start.tokens
        if self.train.epoch_tokens:
            stages["train.epoch_tokens"] = self.train.epoch_tokens
        for name, tokens in stages.items():
            if tokens < step:
                raise ValueError(
                    f"{name} {tokens} is less than one step of train.batch_size x "
                    f"data.seq_len = {step} tokens"
                )
        return self

    @property
    def start(self) -> "RunConfig | None":
        """The run that trains this run's anchor first; None where training is joint."""
        first = self.train.start
        if first is None:
            return None
        stage = {"mode": "joint", "start": None, "tree_part": ()}
        train = self.train.model_copy(update=stage | {"tokens": first.tokens, "lr": first.lr})
        return self.model_copy(update={"train": train, "memory": MemoryConfig()})

    @property
    def steps(self) -> int:
        """Optimiser steps: tokens / (batch_size * seq_len), rounded down."""
        return self.train.tokens // (self.train.batch_size * self.data.seq_len)


class Paths(Section):
    """The ways to one result of which one machine is faster at this, another at that.

    They round differently: arms that are compared take the same (`core.calibrate.measure_paths`).
    """

    # where train.precision is auto; auto here: bf16 where the machine multiplies it natively
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    attention: Literal["plain", "fused"] = "plain"  # three products, or torch's one call
    trunk: Literal["eager", "compiled"] = "eager"  # layers as torch runs or compiles them


class Runtime(Section):
    """Where a run happens. Changes no result, so no run id sees it."""

    device: str = "cpu"
    threads: Count = 1  # two-thread trials collapse on shared cores
    # memory of the device; host: main memory, for a GPU; disk: files in the run's folder, which may
    # be larger than memory
    bank: Literal["device", "host", "disk"] = "device"
    processes: Count = 1  # that share each batch of a run (core/parallel.py)
    paths: Paths = Paths()
    results: Path = Path("results")
    checkpoint_seconds: RateOrZero = 30.0  # wall time between checkpoints

    @property
    def cache(self) -> Path:
        return self.results / "cache"


def load_config(path: Path) -> RunConfig:
    """The run that a YAML file describes. Raises InputError with file, key and what is allowed."""
    return parse_config(read_yaml(path), str(path))


def save_config(config: Section, folder: Path) -> None:
    """Write folder/config.yaml, from which the same config is read, in one move."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_text(folder / "config.yaml", text)


def parse_config(values: Mapping[str, Any], where: str) -> RunConfig:
    """The run that nested `values` describe; `where` (a file, an arm) opens an error's message."""
    return parse_section(RunConfig, values, where)


def parse_section(section: type[S], values: Mapping[str, Any], where: str) -> S:
    """Any section from nested `values`. Raises InputError with key, value and what is allowed."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(section, error)}") from None


def _explain(section: type[Section], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "config"
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(section, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), allowed, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{key}: unknown key; {hint}allowed: {', '.join(sorted(allowed))}"
    if first["type"] == "missing":
        return f"{key}: missing; it has no default, so give it"
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    shown = "" if isinstance(given, dict | Section) else f" = {given!r}"
    return f"{key}{shown}: {message[0].lower()}{message[1:]}"


def _fields_at(section: type[Section], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            break
        section = annotation
    extra = ["size"] if section is AnchorConfig else []
    return [*section.model_fields, *extra]
