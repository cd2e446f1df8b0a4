"""From a finished run to its record."""

import math
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from core.accounting import (
    bytes_per_prompt,
    count_parameters,
    memory_layers,
    start_flops,
    tokens_per_block_parameter,
    training_flops_per_token,
)
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.identity import RECIPE, run_id
from core.memory_types import GENERIC
from core.record import RunRecord, Status


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `losses` holds the record's loss_ and bpb_ columns, none if it diverged."""

    status: Status
    cause: str
    losses: dict[str, Any]
    evaluate_seconds: float  # CPU
    precision: str


def make_record(
    config: RunConfig,
    runtime: Runtime,
    dataset: Dataset,
    progress: dict[str, Any],
    outcome: Outcome,
) -> RunRecord:
    """The record of a run; the sweep adds grid and arm."""
    counts, flops = count_parameters(config), training_flops_per_token(config)
    return RunRecord(
        run_id=run_id(config),
        status=outcome.status,
        cause=outcome.cause,
        seed=config.seed,
        anchor=f"{config.anchor.layers}x{config.anchor.d_model}",
        memory_type=config.memory.type,
        memory_block=config.memory.block if config.memory.type == GENERIC else "",
        widths=_joined(config.memory.widths),
        placement=_joined(memory_layers(config)),
        branching=_joined(config.tree.branching),
        embedder=config.tree.embedder,
        training_key=config.tree.key,
        training=config.train.mode,
        lr=config.train.lr,
        memory_lr=_memory_lr(config),
        n_anchor=counts.anchor,
        n_embed=counts.embed,
        n_fetched=counts.fetched,
        n_bank=counts.bank,
        n_runtime=counts.runtime,
        token_budget=config.train.tokens,
        tokens=progress["tokens"],
        unique_tokens=min(progress["tokens"], dataset.train_tokens),
        tokens_per_block_parameter=_deepest(tokens_per_block_parameter(config)),
        agreement_leaf=dataset.agreement[-1],
        flops_per_token=flops,
        train_flops=flops * progress["tokens"],
        start_flops=start_flops(config),
        bytes_per_prompt=bytes_per_prompt(config),
        loss_train=_last_tenth([point["loss"] for point in progress["curve"]]),
        data_digest=dataset.digest,
        precision=outcome.precision,
        device=_device_name(runtime.device),
        torch=torch.__version__,
        recipe=RECIPE,
        train_seconds=progress["cpu_seconds"],
        evaluate_seconds=outcome.evaluate_seconds,
        wall_seconds=progress["wall_seconds"],
        attempts=progress["attempts"],
        host=platform.node(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **outcome.losses,
    )


def _last_tenth(losses: list[float]) -> float:
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last) if last else math.nan


def _memory_lr(config: RunConfig) -> float:
    if config.memory.type == "none":
        return math.nan
    return config.memory.lr or config.train.lr


def _deepest(per_level: tuple[float, ...]) -> float:
    """The last level that holds blocks."""
    return next((value for value in reversed(per_level) if not math.isnan(value)), math.nan)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _joined(values: tuple[int, ...]) -> str:
    return "-".join(map(str, values))
