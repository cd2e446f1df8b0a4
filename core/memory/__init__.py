"""Memory types by name, and the bank of a config. A new type: one file, and one line here."""

from core.accounting import bank_clusters, bank_widths, memory_layers
from core.config import RunConfig
from core.memory.bank import Bank
from core.memory.base import BlockMemory
from core.memory.ffn import FFNMemory

MEMORY_TYPES: dict[str, type[BlockMemory]] = {
    "ffn": FFNMemory,
    "generic": FFNMemory,  # one block of all widths that every document shares
}

# Keeps the bank's initial draw apart from the anchor's, so arms share their initial anchor.
BANK_SEED_OFFSET = 1_000_003


def create_bank(config: RunConfig) -> Bank | None:
    """The bank of a run, at its initial values; None without memory."""
    if config.memory.type == "none":
        return None
    memory = MEMORY_TYPES[config.memory.type](memory_layers(config), config.anchor.d_model)
    return Bank(memory, bank_clusters(config), bank_widths(config), config.seed + BANK_SEED_OFFSET)
