"""What a machine offers: its devices, and memory for a bank."""

import os
import shutil
from pathlib import Path

from core.accounting import bank_bytes_per_parameter, bank_disk_bytes, count_parameters
from core.config import RunConfig, Runtime
from core.errors import InputError
from core.memory_types import TOKEN_TYPES

# Where a container's limit stands (cgroup version 2); the word "max" is no limit.
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_device(device: str) -> None:
    """Raises InputError for a device that this machine has not."""
    if device == "cpu":
        return
    import torch  # takes seconds, and a run on the CPU is checked without it

    count = torch.cuda.device_count()
    allowed = ["cpu", *(["cuda"] if count else []), *(f"cuda:{n}" for n in range(count))]
    if device not in allowed:
        raise InputError(f"device {device}: this machine has {', '.join(allowed)}; give one")


def check_processes(config: RunConfig, processes: int) -> None:
    """Raises InputError for a run whose batches `processes` cannot share alike."""
    train = config.train
    windows = train.batch_size // train.accumulate
    if processes < 1 or windows % processes:
        raise InputError(
            f"processes {processes}: a micro-batch has {windows} windows (train.batch_size / "
            "train.accumulate); give a number of processes that divides them"
        )
    if processes > 1 and train.tree_part:
        raise InputError(
            f"processes {processes}: train.tree_part leaves them unlike numbers of windows; give 1"
        )


def check_bank_fits(config: RunConfig, runtime: Runtime) -> None:
    """Raises InputError for a bank that the place which `runtime` gives it cannot hold with its
    moments.
    """
    check_bank_place(config, runtime.bank)
    if runtime.bank == "disk":
        needed, held, where = bank_disk_bytes(config), free_bytes(runtime.results), "the disk"
    else:
        where = "cpu" if runtime.bank == "host" else runtime.device
        needed = count_parameters(config).bank * bank_bytes_per_parameter(config)
        held = memory_bytes(where)
    if needed > held:
        raise InputError(
            f"memory: a bank of {count_parameters(config).bank:,} parameters takes "
            f"{needed / 2**30:.1f} GiB with its moments, {where} has {held / 2**30:.1f} GiB; give "
            "smaller memory.widths, a smaller tree.branching or fewer slots, rows or experts"
        )


def check_bank_place(config: RunConfig, bank: str) -> None:
    """Raises InputError for a memory that cannot lie there."""
    if bank != "device" and config.memory.type in TOKEN_TYPES:
        raise InputError(
            f"bank {bank}: memory.type {config.memory.type} has no blocks to fetch from there; "
            "allowed is device"
        )


def free_bytes(folder: Path) -> int:
    """Of the disk that holds `folder`, or will."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder.resolve()).free


def memory_bytes(device: str) -> int:
    """Of the GPU, or of the host as far as a container may use it."""
    if device != "cpu":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.exists() else "max"
    return min(physical, int(limit)) if limit.isdigit() else physical
