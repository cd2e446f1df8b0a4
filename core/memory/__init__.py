"""The memory of a config."""

from pkgutil import resolve_name

import torch

from core.accounting import bank_clusters, bank_widths, block_type, memory_layers
from core.config import RunConfig
from core.memory.bank import Bank, BankPlace
from core.memory.base import BlockMemory
from core.memory.row_format import RowFormat
from core.memory.tokens import TokenMemory
from core.memory_types import NONE, TOKEN_TYPES

# Keeps the memory's initial draw apart from the anchor's, so arms share their initial anchor.
MEMORY_SEED_OFFSET = 1_000_003
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def create_bank(config: RunConfig, place: BankPlace) -> Bank | None:
    """The bank of a run, at its initial values; None where no tree addresses the memory."""
    if config.memory.type == NONE or config.memory.type in TOKEN_TYPES:
        return None
    implementation: type[BlockMemory] = resolve_name(block_type(config).implementation)
    memory = implementation(memory_layers(config), config.anchor)
    seed = config.seed + MEMORY_SEED_OFFSET
    row_format = RowFormat(DTYPES[config.memory.weights], DTYPES[config.memory.moments])
    return Bank(memory, bank_clusters(config), bank_widths(config), seed, place, row_format)


def create_token_memory(config: RunConfig) -> TokenMemory | None:
    """The memory of a run whose tokens address it, at its initial values; None for other types."""
    if config.memory.type not in TOKEN_TYPES:
        return None
    generator = torch.Generator().manual_seed(config.seed + MEMORY_SEED_OFFSET)
    implementation = resolve_name(TOKEN_TYPES[config.memory.type].implementation)
    created: TokenMemory = implementation(
        config.memory, config.anchor, memory_layers(config), generator
    )
    return created
