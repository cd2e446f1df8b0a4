"""The forward pass of a BERT encoder in plain torch. Source: arXiv 1810.04805.

b texts, t word pieces, d width, h heads. Post-norm, learned positions, exact GELU.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

LAYER_NORM_EPS = 1e-12


class Bert:
    """Reads the weights of a checkpoint under their usual names, without its pooler."""

    def __init__(self, weights: Mapping[str, Tensor], layers: int, heads: int) -> None:
        self.weights, self.layers, self.heads = weights, layers, heads

    def __call__(self, ids_bt: Tensor, real_bt: Tensor) -> Tensor:
        """Hidden states [b, t, d]; `real_bt` is false at padding, which nothing attends to."""
        positions_td = self.weights["embeddings.position_embeddings.weight"][: ids_bt.shape[1]]
        first_type_d = self.weights["embeddings.token_type_embeddings.weight"][0]
        words_btd = F.embedding(ids_bt, self.weights["embeddings.word_embeddings.weight"])
        x_btd = self._norm(words_btd + positions_td + first_type_d, "embeddings.LayerNorm")
        for index in range(self.layers):
            x_btd = self._layer(x_btd, real_bt, f"encoder.layer.{index}")
        return x_btd

    def _layer(self, x_btd: Tensor, real_bt: Tensor, name: str) -> Tensor:
        attended_btd = self._attend(x_btd, real_bt, f"{name}.attention.self")
        out_btd = self._linear(attended_btd, f"{name}.attention.output.dense")
        x_btd = self._norm(x_btd + out_btd, f"{name}.attention.output.LayerNorm")
        inner_btf = F.gelu(self._linear(x_btd, f"{name}.intermediate.dense"))
        out_btd = self._linear(inner_btf, f"{name}.output.dense")
        return self._norm(x_btd + out_btd, f"{name}.output.LayerNorm")

    def _attend(self, x_btd: Tensor, real_bt: Tensor, name: str) -> Tensor:
        b, t, d = x_btd.shape
        q, k, v = (
            self._linear(x_btd, f"{name}.{part}").view(b, t, self.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed_bhtc = F.scaled_dot_product_attention(q, k, v, attn_mask=real_bt[:, None, None, :])
        return mixed_bhtc.transpose(1, 2).reshape(b, t, d)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        gain, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, gain.shape, gain, bias, LAYER_NORM_EPS)


def mean_pool(x_btd: Tensor, real_bt: Tensor) -> Tensor:
    """Unit vectors float32 [b, d]: the mean over real word pieces, normalised."""
    weight_bt1 = real_bt[:, :, None].float()
    return F.normalize((x_btd.float() * weight_bt1).sum(1) / weight_bt1.sum(1), dim=-1)


def pad(ids: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids int64 [b, t] padded with 0 to the longest, and where they are real, bool [b, t]."""
    rows = [torch.tensor(row) for row in ids]
    ids_bt = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths_b = torch.tensor([len(row) for row in ids])
    real_bt = torch.arange(ids_bt.shape[1]) < lengths_b[:, None]
    return ids_bt.to(device), real_bt.to(device)
