"""The dense peers: nanoGPT's model and x-transformers, each with its usual training step."""

import importlib.util
import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Shape(NamedTuple):
    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int


Loss = Callable[[Tensor, Tensor], Tensor]  # tokens and targets [b, t] to the mean loss


class Block(nn.Module):
    """LayerNorm before attention and before a GELU MLP of four times the width."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.width
        self.heads = shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        parts = self.qkv(self.norm1(x_btd)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_btd = x_btd + self.out(mixed.transpose(1, 2).flatten(2))
        return x_btd + self.down(F.gelu(self.up(self.norm2(x_btd))))


class GPT(nn.Module):
    """GPT-2's architecture as nanoGPT trains it by default: learned positions, no biases, no
    dropout, tied head, normal initial weights of 0.02, smaller where they write the residual.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.layers if writes else 1))

    def forward(self, tokens_bt: Tensor) -> Tensor:
        """Scores [b, t, v]."""
        position_t = torch.arange(tokens_bt.shape[1], device=tokens_bt.device)
        x_btd = self.tokens(tokens_bt) + self.positions(position_t)
        for block in self.blocks:
            x_btd = block(x_btd)
        return F.linear(self.norm(x_btd), self.tokens.weight)


def nanogpt(shape: Shape) -> tuple[nn.Module, Loss]:
    """nanoGPT from the checkout in NANOGPT_DIR, or its architecture as above."""
    folder = os.environ.get("NANOGPT_DIR")
    if folder:
        theirs = _load(Path(folder) / "model.py")
        sizes = {"n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.width}
        config = theirs.GPTConfig(
            block_size=shape.context, vocab_size=shape.vocabulary, bias=False, dropout=0.0, **sizes
        )
        checkout = theirs.GPT(config)
        return checkout, lambda tokens, targets: checkout(tokens, targets)[1]
    model = GPT(shape)
    return model, lambda tokens, targets: mean_loss(model(tokens), targets)


def x_transformers(shape: Shape) -> tuple[nn.Module, Loss]:
    """The package's decoder with its defaults, its head tied and its fused attention on."""
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(
        dim=shape.width,
        depth=shape.layers,
        heads=shape.heads,
        attn_dim_head=shape.width // shape.heads,
        attn_flash=True,
    )
    model = TransformerWrapper(
        num_tokens=shape.vocabulary,
        max_seq_len=shape.context,
        attn_layers=layers,
        tie_embedding=True,
    )
    return model, lambda tokens, targets: mean_loss(model(tokens), targets)


def mean_loss(scores_btv: Tensor, targets_bt: Tensor) -> Tensor:
    """Nats per token; targets below 0 do not count."""
    return F.cross_entropy(scores_btv.flatten(0, 1), targets_bt.flatten(), ignore_index=-1)


class PeerStep:
    """Forward, backward, clip and fused AdamW, as nanoGPT's loop; `bf16`: under autocast."""

    def __init__(self, model: nn.Module, loss: Loss, lr: float, bf16: bool) -> None:
        self.model, self.loss, self.bf16 = model, loss, bf16
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)

    def __call__(self, tokens_bt: Tensor, targets_bt: Tensor) -> float:
        autocast = torch.autocast(tokens_bt.device.type, torch.bfloat16)
        with autocast if self.bf16 else nullcontext():
            loss = self.loss(tokens_bt, targets_bt)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def _load(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
