"""From a finished run to its record."""

import math
import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from core.batches import distinct_tokens
from core.config import RunConfig, Runtime
from core.dataset import Dataset
from core.identity import RECIPE, run_id
from core.planned import planned_record
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
    planned, tokens = planned_record(config), progress["tokens"]
    return replace(
        planned,
        run_id=run_id(config),
        status=outcome.status,
        cause=outcome.cause,
        tokens=tokens,
        unique_tokens=min(tokens, distinct_tokens(config, dataset)),
        agreement_leaf=dataset.agreement[-1],
        train_flops=planned.flops_per_token * tokens,
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


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
