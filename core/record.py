"""RunRecord: the one row per run that sweeps write and analysis reads, with units.

Light on purpose: no torch, no Ray, so that thousands of records load in a moment.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import InputError
from core.writing import write_text

RECORD = "record.json"  # in the folder of a finished run
CURVE = ("step", "tokens", "loss", "lr")  # columns of its curve.csv


class Status(StrEnum):
    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"
    STOPPED = "stopped"  # early, by the grid's schedule; another grid may train it in full


# What the retriever saw when a loss was measured; `off` is the memory switched off. The last two
# are controls, measured on test alone.
KEYS = {"validation": ("prefix", "document"), "test": ("prefix", "document", "shuffled", "off")}


def _column(unit: str, meaning: str, default: Any = None) -> Any:
    return field(default=default, metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run. Losses are means over the scored tokens of a split.

    `loss_SPLIT_KEY` scores the second part of each window (the part the prefix key does not see),
    so every key scores the same tokens; `loss_SPLIT_whole` scores all tokens under the document
    key, as arXiv 2510.02375 reports it. Without a path (none, generic) all routed keys give one
    loss.
    """

    run_id: str = _column("-", "hash of everything that changes the result", "")
    grid: str = _column("-", "grid that ran it", "")
    arm: str = _column("-", "arm of the grid", "")
    status: str = _column("-", "done, diverged, failed or stopped", Status.DONE)
    cause: str = _column("-", "why it diverged, failed or was stopped", "")
    seed: int = _column("-", "initial weights and data order; pairs the arms", 0)

    anchor: str = _column("-", "layers x d_model", "")
    memory_type: str = _column("-", "none, generic, or a type of memory", "none")
    memory_block: str = _column("-", "what a generic block is made of", "")
    widths: str = _column("-", "multiplier r per level, as for the uniform placement", "")
    placement: str = _column("-", "layers that hold memory", "")
    branching: str = _column("-", "children per node, per level of the tree", "")
    embedder: str = _column("-", "what turned keys into vectors; random: paths by hash", "")
    training_key: str = _column("-", "key that routed training windows", "")
    training: str = _column("-", "joint, or warm or frozen on an anchor trained first", "joint")
    lr: float = _column("-", "peak learning rate of the anchor", float("nan"))
    memory_lr: float = _column("-", "peak learning rate of the bank", float("nan"))

    n_anchor: int = _column("parameters", "N: anchor without embeddings", 0)
    n_embed: int = _column("parameters", "embedding and head tables", 0)
    n_fetched: int = _column("parameters", "M: memory used for one document", 0)
    n_bank: int = _column("parameters", "W: all memory", 0)
    n_runtime: int = _column("parameters", "N + M: what a forward pass multiplies, head aside", 0)
    token_budget: int = _column("tokens", "train.tokens of the config, padding included", 0)
    tokens: int = _column("tokens", "D: training tokens, padding not counted", 0)
    unique_tokens: int = _column("tokens", "distinct training tokens among them", 0)
    tokens_per_block_parameter: float = _column(
        "tokens/parameter",
        "training tokens per parameter of a deepest block, mean over leaves",
        float("nan"),
    )
    agreement_leaf: float = _column(
        "share",
        "test windows whose prefix reaches their document's leaf; 1 by construction if random",
        float("nan"),
    )
    flops_per_token: float = _column("FLOP/token", "training, forward and backward", float("nan"))
    train_flops: float = _column("FLOP", "flops_per_token x tokens", float("nan"))
    start_flops: float = _column(
        "FLOP", "of the stage that trained the anchor first, by its token budget", 0.0
    )
    bytes_per_prompt: int = _column("bytes", "memory moved for one prompt, in bf16", 0)

    loss_train: float = _column("nats/token", "mean over the last tenth of training", float("nan"))
    loss_validation_prefix: float = _column("nats/token", "prefix key", float("nan"))
    loss_validation_document: float = _column("nats/token", "whole-document key", float("nan"))
    loss_validation_whole: float = _column("nats/token", "all tokens, document key", float("nan"))
    loss_test_prefix: float = _column("nats/token", "prefix key", float("nan"))
    loss_test_document: float = _column("nats/token", "whole-document key", float("nan"))
    loss_test_shuffled: float = _column("nats/token", "paths shuffled over windows", float("nan"))
    loss_test_off: float = _column("nats/token", "memory off", float("nan"))
    loss_test_generic: float = _column("nats/token", "the generic mix's block", float("nan"))
    loss_test_whole: float = _column("nats/token", "all tokens, document key", float("nan"))
    bpb_validation_prefix: float = _column("bits/byte", "prefix key", float("nan"))
    bpb_validation_document: float = _column("bits/byte", "whole-document key", float("nan"))
    bpb_validation_whole: float = _column("bits/byte", "all tokens, document key", float("nan"))
    bpb_test_prefix: float = _column("bits/byte", "prefix key", float("nan"))
    bpb_test_document: float = _column("bits/byte", "whole-document key", float("nan"))
    bpb_test_shuffled: float = _column("bits/byte", "paths shuffled over windows", float("nan"))
    bpb_test_off: float = _column("bits/byte", "memory off", float("nan"))
    bpb_test_generic: float = _column("bits/byte", "the generic mix's block", float("nan"))
    bpb_test_whole: float = _column("bits/byte", "all tokens, document key", float("nan"))

    data_digest: str = _column(
        "-", "hash of the prepared arrays; differs if another machine prepared others", ""
    )
    precision: str = _column("-", "bf16 or fp32", "")
    device: str = _column("-", "cpu or the GPU's name", "")
    torch: str = _column("-", "version", "")
    recipe: int = _column("-", "version of the numerics", 0)
    train_seconds: float = _column("CPU seconds", "training", float("nan"))
    evaluate_seconds: float = _column("CPU seconds", "evaluation", float("nan"))
    wall_seconds: float = _column("seconds", "the run, restarts included", float("nan"))
    attempts: int = _column("-", "starts and resumptions", 1)
    host: str = _column("-", "machine", "")
    finished: str = _column("ISO 8601", "when the run ended", "")


COLUMNS = tuple(f.name for f in fields(RunRecord))
UNITS = {f.name: f.metadata["unit"] for f in fields(RunRecord)}
MEANINGS = {f.name: f.metadata["meaning"] for f in fields(RunRecord)}
# Columns that may differ between two runs of one id.
INCIDENTAL = (
    "grid",
    "arm",
    "train_seconds",
    "evaluate_seconds",
    "wall_seconds",
    "attempts",
    "host",
    "finished",
)
_TEXT = {f.name for f in fields(RunRecord) if f.type is str}
_WHOLE = {f.name for f in fields(RunRecord) if f.type is int}


def to_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Records as a tidy frame, one row a run, columns in schema order."""
    rows = [{name: getattr(record, name) for name in COLUMNS} for record in records]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def from_row(row: Mapping[str, Any]) -> RunRecord:
    """A record from a row of runs.csv or of record.json; columns it lacks keep their defaults."""
    known = {name: _typed(name, row[name]) for name in COLUMNS if name in row}
    return RunRecord(**known)


def _typed(name: str, value: Any) -> Any:
    if name in _TEXT:
        return "" if pd.isna(value) else str(value)
    return int(value) if name in _WHOLE else float(value)


def write_record(record: RunRecord, path: Path) -> None:
    """Write a run's record.json: from then on the run is finished."""
    write_text(path, json.dumps(record.__dict__))


def read_record(path: Path) -> RunRecord:
    """The record of a finished run. Raises InputError where there is none."""
    try:
        return from_row(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no record of a finished run ({error}); train it") from None


def write_runs(frame: pd.DataFrame, path: Path) -> None:
    """Write runs.csv, and columns.csv with units and meanings beside it."""
    header = pd.DataFrame(
        {
            "column": COLUMNS,
            "unit": [UNITS[c] for c in COLUMNS],
            "meaning": [MEANINGS[c] for c in COLUMNS],
        }
    )
    write_csv(frame, path)
    write_csv(header, path.with_name("columns.csv"))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table whole."""
    write_text(path, frame.to_csv(index=False))


def read_runs(path: Path) -> pd.DataFrame:
    """runs.csv as a frame with the schema's columns and types; text columns never hold NaN.

    Columns that a table of an older version lacks get their defaults. Raises InputError for a file
    that is no table of runs.
    """
    frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str))
    if missing := [name for name in ("run_id", "arm", "status") if name not in frame.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it is no table of runs")
    text = [name for name in frame.columns if name in _TEXT]
    frame[text] = frame[text].fillna("")
    added: dict[str, Any] = {
        f.name: f.default for f in fields(RunRecord) if f.name not in frame.columns
    }
    return frame.assign(**added)[list(COLUMNS)]
