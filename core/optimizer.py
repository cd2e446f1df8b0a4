"""The anchor's AdamW, and its moments by name for checkpoints."""

import torch
from torch import Tensor

from core.config import RunConfig
from core.model import Model


def anchor_optimizer(model: Model, config: RunConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices alone, as is usual: tables and gains have none."""
    train = config.train
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.anchor.named_parameters():
        (matrices if name.endswith(".weight") else others).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), fused=True)


def optimizer_state(model: Model, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Moments and step counts as adam.PARAMETER.KEY."""
    return {
        f"adam.{name}.{key}": value
        for name, parameter in model.anchor.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_state(
    model: Model, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]
) -> None:
    """Take over what `optimizer_state` gave; other tensors in the mapping are left alone."""
    for name, parameter in model.anchor.named_parameters():
        start = f"adam.{name}."
        optimizer.state[parameter] = {
            key.removeprefix(start): value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith(start)
        }
