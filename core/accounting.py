"""What a run costs, from its config alone: parameters by group, FLOPs, bytes per prompt.

Torch-free, so that a grid of thousands is priced in a moment. `core/anchor.py` and `core/memory`
must agree with it to the parameter; tests hold them to it, and to the counts that arXiv 2510.02375
prints.
"""

from dataclasses import dataclass
from math import prod

from core.config import AnchorConfig, RunConfig
from core.memory_types import BLOCK_TYPES, GENERIC, NONE, TOKEN_TYPES, BlockType, TokenCosts
from core.placement import place

BYTES = {"fp32": 4, "bf16": 2}  # of a number


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by group; `total` is their sum and nothing else."""

    anchor: int  # N, without embeddings and without FFNs that the memory replaces
    embed: int  # embedding table, and head table where untied
    fetched: int  # M, the blocks on one path, or what one token uses
    bank: int  # W, all memory

    @property
    def runtime(self) -> int:
        return self.anchor + self.fetched

    @property
    def total(self) -> int:
        return self.anchor + self.embed + self.bank


@dataclass(frozen=True)
class FlopCounts:
    """Forward products per token, in FLOP (a multiply-add is 2); table look-ups stand apart."""

    anchor: int  # projections and FFNs
    attention: int  # scores and mixing, over the mean causal context
    head: int
    memory: int  # products with fetched parameters
    lookups: int  # values read from tables per token: no products

    @property
    def forward(self) -> int:
        return self.anchor + self.attention + self.head + self.memory


def count_parameters(config: RunConfig) -> ParameterCounts:
    """Parameters of a run by group."""
    embed = config.data.vocab_size * config.anchor.d_model * (1 if config.anchor.tied else 2)
    anchor = count_anchor(config.anchor) - replaced_parameters(config)
    if config.memory.type in TOKEN_TYPES:
        costs = token_costs(config)
        return ParameterCounts(anchor, embed, costs.dense + costs.read, costs.dense + costs.stored)
    blocks, clusters = block_parameters(config), bank_clusters(config)
    bank = sum(size * n for size, n in zip(blocks, clusters, strict=True))
    return ParameterCounts(anchor, embed, sum(blocks), bank)


def token_costs(config: RunConfig) -> TokenCosts:
    """Parameters and products of a memory that each token addresses."""
    count = TOKEN_TYPES[config.memory.type].costs
    return count(config.memory, config.anchor, len(memory_layers(config)))


def replaced_layers(config: RunConfig) -> tuple[int, ...]:
    """Layers whose FFN the memory replaces."""
    token = TOKEN_TYPES.get(config.memory.type)
    return memory_layers(config) if token and token.replaces_ffn else ()


def replaced_parameters(config: RunConfig) -> int:
    """The anchor's FFN matrices that are not there."""
    return len(replaced_layers(config)) * 3 * config.anchor.d_model * config.anchor.ffn


def count_anchor(anchor: AnchorConfig) -> int:
    """N: matrices, two gains a layer, gains of QK-norm, the last gain.

    Source: arXiv 2510.02375, tables 4 to 6, whose totals imply the QK-norm.
    """
    width = anchor.heads * anchor.head_dim
    matrices = 4 * anchor.d_model * width + 3 * anchor.d_model * anchor.ffn
    gains = 2 * anchor.d_model + 2 * width
    return anchor.layers * (matrices + gains) + anchor.d_model


def tree_clusters(branching: tuple[int, ...]) -> tuple[int, ...]:
    """Clusters per level of a tree: (4, 4) has (4, 16)."""
    return tuple(prod(branching[: level + 1]) for level in range(len(branching)))


def block_type(config: RunConfig) -> BlockType:
    """What the blocks of the bank are made of."""
    memory = config.memory
    return BLOCK_TYPES[memory.block if memory.type == GENERIC else memory.type]


def bank_widths(config: RunConfig) -> tuple[int, ...]:
    """Multiplier r per level of the bank, at the layers that hold memory.

    Fewer layers hold wider blocks of the same size. The generic control holds all widths in one
    block.
    """
    layers, memory = config.anchor.layers, config.memory
    widths = tuple(r * layers // len(memory_layers(config)) for r in memory.widths)
    return (sum(widths),) if memory.type == GENERIC else widths


def bank_clusters(config: RunConfig) -> tuple[int, ...]:
    """Blocks per level of the bank; with a generic mix the last block of a level is its generic."""
    if config.memory.type == GENERIC:
        return (1,)
    clusters = tree_clusters(config.tree.branching)[: len(config.memory.widths)]
    return tuple(n + 1 for n in clusters) if config.memory.generic_mix else clusters


def bank_bytes_per_parameter(config: RunConfig) -> int:
    """A weight of the bank and its two moments, between steps."""
    return BYTES[config.memory.weights] + 2 * BYTES[config.memory.moments]


def bank_disk_bytes(config: RunConfig) -> int:
    """What a run can write of a bank on disk, where a step trains a row a document and level."""
    return _rows_bytes(config, config.steps * config.train.batch_size)


def full_bank_disk_bytes(config: RunConfig) -> int:
    """What a bank on disk takes when every row of it has been trained."""
    return _rows_bytes(config, max(bank_clusters(config), default=0))


def _rows_bytes(config: RunConfig, most: int) -> int:
    """At most so many rows of each level; beside its parameters a row has 8 bytes of step count."""
    held = bank_bytes_per_parameter(config)
    sizes = zip(block_parameters(config), bank_clusters(config), strict=True)
    return sum((8 + held * size) * min(n, most) for size, n in sizes if size)


def block_parameters(config: RunConfig) -> tuple[int, ...]:
    """Parameters of one block per level: c0 r_l (arXiv 2510.02375, sec. 2.2 and app. I).

    Empty where the memory has no blocks.
    """
    if config.memory.type == NONE or config.memory.type in TOKEN_TYPES:
        return ()
    c0 = block_type(config).unit(config.anchor) * len(memory_layers(config))
    return tuple(c0 * r for r in bank_widths(config))


def memory_layers(config: RunConfig) -> tuple[int, ...]:
    """Layers that hold memory, by placement."""
    if config.memory.type == NONE:
        return ()
    return place(config.memory.placement, config.anchor.layers)


def count_flops(config: RunConfig) -> FlopCounts:
    """Forward products of one token. A causal token sees (T + 1) / 2 tokens in the mean."""
    anchor = config.anchor
    width = anchor.heads * anchor.head_dim
    matrices = anchor.layers * (4 * anchor.d_model * width + 3 * anchor.d_model * anchor.ffn)
    by_token = config.memory.type in TOKEN_TYPES
    return FlopCounts(
        anchor=2 * (matrices - replaced_parameters(config)),
        attention=2 * anchor.layers * width * (config.data.seq_len + 1),
        head=2 * config.data.vocab_size * anchor.d_model,
        memory=token_costs(config).flops if by_token else 2 * sum(block_parameters(config)),
        lookups=anchor.d_model + looked_up(config),
    )


def looked_up(config: RunConfig) -> int:
    """Values that one token reads from the memory's tables; experts are weights, not a table."""
    return token_costs(config).read if config.memory.type in ("pkm", "ngram") else 0


def training_flops_per_token(config: RunConfig) -> float:
    """FLOP per training token: the backward pass costs twice the forward.

    On a frozen anchor its matrices need no gradient, which saves one of the two there; attention
    multiplies activations alone and memory is trained, so neither saves anything.
    """
    flops = count_flops(config)
    saved = flops.anchor + flops.head if config.train.mode == "frozen" else 0
    return 3.0 * flops.forward - saved


def start_flops(config: RunConfig) -> float:
    """FLOP of the stage that trained the anchor first, padding included; 0 without one."""
    start = config.start
    return training_flops_per_token(start) * start.train.tokens if start else 0.0


def generic_path(config: RunConfig) -> tuple[int, ...]:
    """The path of a generic mix's block: behind the last cluster of each level."""
    return tree_clusters(config.tree.branching)


def bytes_per_prompt(config: RunConfig) -> int:
    """Bytes of memory moved for one prompt of seq_len tokens, in bf16.

    A generic block and dense weights stay where they are. Tokens that address rows or experts of
    their own move at most all that they read, and never more than there is.
    """
    if config.memory.type == GENERIC:
        return 0
    if config.memory.type in TOKEN_TYPES:
        costs = token_costs(config)
        return BYTES["bf16"] * min(config.data.seq_len * costs.read, costs.stored)
    return BYTES["bf16"] * count_parameters(config).fetched


def tokens_per_block_parameter(config: RunConfig) -> tuple[float, ...]:
    """Training tokens per parameter of a block, per level, mean over the level; nan where r = 0.

    The rows that a generic mix takes away train no block of the tree.
    """
    sizes = block_parameters(config)
    clusters = (1,) if config.memory.type == GENERIC else tree_clusters(config.tree.branching)
    tokens = config.train.tokens * (1 - config.memory.generic_mix)
    return tuple(
        tokens / n / size if size else float("nan")
        for size, n in zip(sizes, clusters, strict=False)  # a bank may end above the leaves
    )
