"""What a run takes of a machine, from its config alone, and whether the machine has it."""

import os
from collections.abc import Sequence

from core.accounting import BYTES, bank_bytes_per_parameter, bank_disk_bytes, count_parameters
from core.config import RunConfig, Runtime
from core.device import check_bank_place, check_processes, free_bytes, memory_bytes
from core.errors import InputError
from sweeps.grid import Grid, Trial
from sweeps.store import Store

# Bytes.
PROCESS = 1_900_000_000  # a worker at its largest over ten small runs: torch 2.13 on a CPU
DENSE = 16  # a parameter of the anchor: weight, gradient and two moments in fp32
WEIGHT = 4
MOMENTS = 8
CHECKPOINTS = 3  # the two that are kept, and the next one while it is written
ON_THE_WAY = 2  # copies of fetched rows of a bank on disk: read ahead, being written
FILES = 50_000  # curve, config and record of a run


def memory_needed(config: RunConfig, bank: str = "device") -> int:
    """Bytes of a worker that trains the run: state, fetched rows with gradients, activations."""
    counts, train = count_parameters(config), config.train
    kept = bank_bytes_per_parameter(config)
    held = 0 if bank == "disk" else kept * counts.bank
    row = 2 * WEIGHT + (WEIGHT + MOMENTS + ON_THE_WAY * kept if bank == "disk" else 0)
    rows = row * min(counts.bank, counts.fetched * train.batch_size)
    return PROCESS + DENSE * (counts.anchor + counts.embed) + held + rows + _activations(config)


def _activations(config: RunConfig) -> int:
    """Of one micro-batch: about 16 vectors of d_model and 4 of the FFN a layer, and the logits with
    their softmax and gradient."""
    anchor = config.anchor
    tokens = config.train.batch_size // config.train.accumulate * config.data.seq_len
    layers = anchor.layers * (16 * anchor.d_model + 4 * anchor.ffn)
    return WEIGHT * tokens * (layers + 3 * config.data.vocab_size)


def disk_needed(config: RunConfig, bank: str = "device") -> int:
    """Bytes of a run's folder while it trains: checkpoints, weights and tables, and a bank on disk
    with what its rows held at each checkpoint.
    """
    counts = count_parameters(config)
    dense = (counts.anchor + counts.embed) * (CHECKPOINTS * (WEIGHT + MOMENTS) + WEIGHT)
    if bank == "disk":
        return dense + (1 + CHECKPOINTS) * bank_disk_bytes(config) + FILES
    kept = CHECKPOINTS * bank_bytes_per_parameter(config) + BYTES[config.memory.weights]
    return dense + counts.bank * kept + FILES


def disk_kept(config: RunConfig, bank: str = "device") -> int:
    """Bytes of the folder of a finished run, which has no checkpoints; what a bank on disk held at
    them stays.
    """
    counts = count_parameters(config)
    dense = (WEIGHT + MOMENTS) * (counts.anchor + counts.embed)
    blocks = 0 if bank == "disk" else bank_bytes_per_parameter(config) * counts.bank
    return disk_needed(config, bank) - CHECKPOINTS * (dense + blocks)


def most_disk(grid: Grid, trials: Sequence[Trial], bank: str = "device") -> int:
    """Bytes of `trials` when all but the largest are finished, of which one a core still trains.

    Those that early stopping may end keep their checkpoints.
    """
    extra = [(t.arm, disk_needed(t.config, bank) - disk_kept(t.config, bank)) for t in trials]
    stopped = sum(number for arm, number in extra if arm in grid.early_stopping)
    others = sorted((number for arm, number in extra if arm not in grid.early_stopping))
    training = sum(others[-(os.cpu_count() or 1) :])
    return sum(disk_kept(t.config, bank) for t in trials) + stopped + training


def refuse_what_cannot_fit(
    grid: Grid, pending: Sequence[Trial], store: Store, bank: str = "device"
) -> None:
    """Raises InputError for a run larger than the memory here, or more runs than the disk holds.

    With RAY_ADDRESS the runs train elsewhere, and the cluster says what it has; with a storage
    their folders lie there too.
    """
    here = "RAY_ADDRESS" not in os.environ
    for trial in pending if here else ():
        _check_memory(grid, trial, memory_bytes("cpu"), bank)
    if here or not store.storage:
        _check_disk(grid, pending, store, bank)


def _check_disk(grid: Grid, pending: Sequence[Trial], store: Store, bank: str) -> None:
    needed = most_disk(grid, pending, bank)
    free = free_bytes(store.results)
    if needed > free:
        raise InputError(
            f"{grid.path}: {len(pending)} runs need about {gibibytes(needed)} of disk, "
            f"{store.results} has {gibibytes(free)}; shorten axes or seeds, or give RESULTS=another"
        )


def refuse_unfit_runs(grid: Grid, pending: Sequence[Trial], runtime: Runtime) -> None:
    """Raises InputError for a run whose bank cannot lie where it shall or whose batches the
    processes cannot share alike, and for early stopping with several processes: Ray starts no
    further trial after a stop.
    """
    if runtime.processes > 1 and grid.early_stopping:
        arms = ", ".join(sorted(grid.early_stopping))
        raise InputError(
            f"{grid.path}: arm {arms}: early_stopping with processes {runtime.processes}; "
            "remove one"
        )
    for trial in pending:
        try:
            check_bank_place(trial.config, runtime.bank)
            check_processes(trial.config, runtime.processes)
        except InputError as error:
            where = f"{grid.path}: arm {trial.arm}: '{trial.name}'"
            raise InputError(f"{where}: {error}") from None


def _check_memory(grid: Grid, trial: Trial, held: int, bank: str) -> None:
    needed = memory_needed(trial.config, bank)
    if needed > held:
        raise InputError(
            f"{grid.path}: arm {trial.arm}: '{trial.name}' needs about {gibibytes(needed)} of "
            f"memory, this machine has {gibibytes(held)}; give a smaller anchor, memory or "
            "train.batch_size, or raise train.accumulate"
        )


def gibibytes(number: float) -> str:
    """Bytes as 1.5 GiB."""
    return f"{number / 2**30:,.1f} GiB"


def reserved(config: RunConfig, largest: int, bank: str = "device") -> int:
    """Bytes that Ray sets aside for a run where the largest machine has `largest`.

    The next power of two: workers are handed from run to run where what is set aside is equal.
    """
    return min(largest, 2 ** (memory_needed(config, bank) - 1).bit_length())
