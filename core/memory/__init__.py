"""The bank of a config."""

from pkgutil import resolve_name

from core.accounting import bank_clusters, bank_widths, block_type, memory_layers
from core.config import RunConfig
from core.memory.bank import Bank
from core.memory.base import BlockMemory

# Keeps the bank's initial draw apart from the anchor's, so arms share their initial anchor.
BANK_SEED_OFFSET = 1_000_003


def create_bank(config: RunConfig) -> Bank | None:
    """The bank of a run, at its initial values; None without memory."""
    if config.memory.type == "none":
        return None
    implementation: type[BlockMemory] = resolve_name(block_type(config).implementation)
    memory = implementation(memory_layers(config), config.anchor)
    return Bank(memory, bank_clusters(config), bank_widths(config), config.seed + BANK_SEED_OFFSET)
