"""AdamW of the dense weights, and its moments by name for checkpoints."""

import torch
from torch import Tensor

from core import parallel
from core.config import RunConfig
from core.model import Model


def dense_optimizer(model: Model, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with decay on the anchor's matrices alone, as is usual: tables and gains have none.

    Dense weights of a memory follow its own rate and decay. Each group keeps its peak rate.
    """
    train, memory = config.train, config.memory
    groups: dict[str, list[Tensor]] = {"matrices": [], "others": [], "memory": []}
    for name, parameter in model.dense_parameters():
        kind = "matrices" if name.endswith(".weight") else "others"
        groups["memory" if name.startswith("memory.") else kind].append(parameter)
    settings = {
        "matrices": {"weight_decay": train.weight_decay, "peak": train.lr},
        "others": {"weight_decay": 0.0, "peak": train.lr},
        "memory": {"weight_decay": memory.weight_decay, "peak": memory.lr or train.lr},
    }
    return torch.optim.AdamW(
        [{"params": tensors, **settings[kind]} for kind, tensors in groups.items()],
        lr=train.lr,
        betas=(train.beta1, train.beta2),
        fused=True,
    )


def optimizer_state(model: Model, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Moments and step counts as adam.PARAMETER.KEY; of several processes the first has them
    whole."""
    return {
        f"adam.{name}.{key}": parallel.whole(value)
        for name, parameter in model.dense_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_state(
    model: Model, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]
) -> None:
    """Take over what `optimizer_state` gave; other tensors in the mapping are left alone."""
    for name, parameter in model.dense_parameters():
        start = f"adam.{name}."
        optimizer.state[parameter] = {
            key.removeprefix(start): parallel.share(value.to(parameter.device), parameter)
            for key, value in tensors.items()
            if key.startswith(start)
        }
