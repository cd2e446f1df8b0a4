"""What a record says before the run: all that follows from its config."""

import math

from core.accounting import (
    bytes_per_prompt,
    count_parameters,
    memory_layers,
    start_flops,
    tokens_per_block_parameter,
    training_flops_per_token,
)
from core.config import RunConfig
from core.memory_types import GENERIC, NONE
from core.record import RunRecord


def planned_record(config: RunConfig) -> RunRecord:
    """A record without what only a run can tell: its end, its tokens and its losses."""
    counts, memory = count_parameters(config), config.memory
    return RunRecord(
        seed=config.seed,
        anchor=f"{config.anchor.layers}x{config.anchor.d_model}",
        memory_type=memory.type,
        memory_block=memory.block if memory.type == GENERIC else "",
        widths=_joined(memory.widths),
        placement=_joined(memory_layers(config)),
        branching=_joined(config.tree.branching),
        embedder=config.tree.embedder,
        training_key=config.tree.key,
        training=config.train.mode,
        lr=config.train.lr,
        memory_lr=math.nan if memory.type == NONE else memory.lr or config.train.lr,
        n_anchor=counts.anchor,
        n_embed=counts.embed,
        n_fetched=counts.fetched,
        n_bank=counts.bank,
        n_runtime=counts.runtime,
        token_budget=config.train.tokens,
        tokens_per_block_parameter=_deepest(tokens_per_block_parameter(config)),
        flops_per_token=training_flops_per_token(config),
        start_flops=start_flops(config),
        bytes_per_prompt=bytes_per_prompt(config),
    )


def _deepest(per_level: tuple[float, ...]) -> float:
    """The last level that holds blocks."""
    return next((value for value in reversed(per_level) if not math.isnan(value)), math.nan)


def _joined(values: tuple[int, ...]) -> str:
    return "-".join(map(str, values))
