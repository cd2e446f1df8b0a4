"""Small banks of every block type, with nothing at zero."""

from pkgutil import resolve_name

import torch

from core.config import AnchorConfig
from core.memory.bank import Bank
from core.memory_types import BLOCK_TYPES

D, HEADS, HEAD_DIM, FFN, LAYERS = 6, 2, 4, 5, (0, 2)  # heads are wider than the stream
ANCHOR = AnchorConfig(layers=3, d_model=D, heads=HEADS, head_dim=HEAD_DIM, ffn=FFN)
PATHS = torch.tensor([[0, 1], [1, 3], [0, 1], [1, 2]])  # documents 0 and 2 share their blocks


def random_bank(name: str) -> Bank:
    """Two levels of widths 3 and 2 in float64."""
    memory = resolve_name(BLOCK_TYPES[name].implementation)(LAYERS, ANCHOR)
    bank = Bank(memory, (2, 4), (3, 2), seed=0)
    generator = torch.Generator().manual_seed(1)
    for table in bank.tables.values():
        table.rows = torch.randn(table.rows.shape, generator=generator, dtype=torch.float64)
    return bank
