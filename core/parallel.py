"""What the processes of one run do together; with one process nothing here does anything.

Each process holds a share of the dense weights and of their moments (FSDP2) and computes its share
of each batch; sums over processes make losses and gradients those of the whole batch. The blocks of
a bank lie with the first process, which sends those of a batch to the others. It also writes what
a run leaves. Every process must make the same calls in the same order.

What torch shards with is imported where there is something to share: it takes a second, which every
worker of a sweep would pay.
"""

from typing import TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

T = TypeVar("T")


def count() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this process writes."""
    return rank() == 0


def shard(device: str, *modules: nn.Module) -> None:
    """Spread the weights of `modules` over the processes; inner modules come before outer ones.

    A module's weights are whole while it computes. Its gradients are sums over processes.
    """
    if count() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (count(),))
    for module in modules:
        sharded = fully_shard(module, mesh=mesh)
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def whole(x: Tensor) -> Tensor:
    """`x`; if it is sharded, all of it in host memory, on the first process alone."""
    if count() == 1:
        return x
    from torch.distributed.tensor import DTensor

    if not isinstance(x, DTensor):
        return x
    full = x.full_tensor()  # takes every process
    return full.cpu() if first() else x


def share(x: Tensor, like: Tensor) -> Tensor:
    """`x`; if it belongs to the sharded `like`, this process's share of it."""
    if count() == 1:
        return x
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or x.shape != like.shape:
        return x
    return distribute_tensor(
        x.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def from_first(value: T) -> T:
    """What the first process gives."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def copy_first(x: Tensor) -> None:
    """Overwrite `x` with that of the first process."""
    if count() > 1:
        dist.broadcast(x, 0)


def total(x: float) -> float:
    """The sum over processes."""
    if count() == 1:
        return x
    return float(add_up(torch.tensor(x, dtype=torch.float64)))


def mean(x_nd: Tensor) -> Tensor:
    """The mean [d] over the rows of all processes; gradients reach all of them."""
    everyone = dist.group.WORLD
    if everyone is None:
        return x_nd.mean(0)
    from torch.distributed._functional_collectives import all_reduce

    return all_reduce(x_nd.sum(0), "sum", everyone) / total(len(x_nd))


def add_up(x: Tensor) -> Tensor:
    """The sum over processes: of a dense tensor in place, of a sparse one [n, d] uncoalesced."""
    if count() == 1:
        return x
    if x.is_sparse:
        return _add_up_rows(x.coalesce())
    dist.all_reduce(x)
    return x


def _add_up_rows(x: Tensor) -> Tensor:
    """The entries of all processes behind each other, filled up to one length with zeros."""
    longest = torch.tensor(x._nnz())
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    missing = int(longest) - x._nnz()
    indices = _gather(F.pad(x.indices(), (0, missing)))
    values = _gather(F.pad(x.values(), (0, 0, 0, missing)))
    entries = torch.cat(indices, 1), torch.cat(values)
    return torch.sparse_coo_tensor(*entries, x.shape, check_invariants=False)


def _gather(x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(count())]
    dist.all_gather(parts, x)
    return parts
