"""Names that a person can read: `ffn d64 train.lr 0.01 seed 1`."""

from collections.abc import Mapping
from typing import Any

from core.config import AnchorConfig, RunConfig
from core.sizes import ANCHOR_SIZES


def trial_name(arm: str, config: RunConfig, point: Mapping[str, Any]) -> str:
    """Arm, anchor, what else the axes vary, and the seed."""
    varied = [
        f"{key} {_show(value)}" for key, value in point.items() if key.split(".")[0] != "anchor"
    ]
    return " ".join([arm, anchor_name(config.anchor), *varied, f"seed {config.seed}"])


def anchor_name(anchor: AnchorConfig) -> str:
    """The size's name; for sizes without one, layers x d_model and what sets it apart."""
    numbers = anchor.model_dump(exclude={"rope_base"})
    named = (name for name, size in ANCHOR_SIZES.items() if size == numbers)
    return next(named, f"{anchor.layers}x{anchor.d_model}x{anchor.ffn}")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_show(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ",".join(_show(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
