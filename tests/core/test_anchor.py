"""The transformer against a slow one written token by token."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from core.anchor import Anchor
from core.config import AnchorConfig, RunConfig

CONFIG = AnchorConfig(layers=2, d_model=12, heads=3, head_dim=4, ffn=10)


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.pow(2).mean() + 1e-6).sqrt() * gain


def turn(x: Tensor, position: int) -> Tensor:
    """RoPE on one head's vector, pair (i, i + half) as a complex number."""
    half = len(x) // 2
    turned = torch.empty_like(x)
    for i in range(half):
        angle = position * 100_000.0 ** (-i / half)
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i] * math.sin(angle) + x[i + half] * math.cos(angle)
    return turned


def slow_hidden(anchor: Anchor, tokens: list[int], segments: list[int]) -> Tensor:
    """Last hidden states of one row, one token, one head and one key at a time."""
    config = anchor.config
    xs = [anchor.embedding[token] for token in tokens]
    for layer in anchor.layers:
        a = layer.attention
        normed = [rms(x, layer.attention_norm.gain) for x in xs]
        wq, wk, wv = a.qkv.weight.chunk(3)
        qs = [rms(wq @ x, a.q_norm.gain) for x in normed]
        ks = [rms(wk @ x, a.k_norm.gain) for x in normed]
        vs = [wv @ x for x in normed]
        out = []
        for t in range(len(xs)):
            heads = []
            for h in range(config.heads):
                part = slice(h * config.head_dim, (h + 1) * config.head_dim)
                seen = [s for s in range(t + 1) if segments[s] == segments[t]]
                scores = torch.stack(
                    [
                        turn(qs[t][part], t) @ turn(ks[s][part], s) / math.sqrt(config.head_dim)
                        for s in seen
                    ]
                )
                weights = scores.exp() / scores.exp().sum()
                heads.append(sum(w * vs[s][part] for w, s in zip(weights, seen, strict=True)))
            out.append(a.out.weight @ torch.cat(heads))
        xs = [x + o for x, o in zip(xs, out, strict=True)]
        for t, x in enumerate(xs):
            n = rms(x, layer.ffn_norm.gain)
            gate, up = layer.ffn.gate_up.weight.chunk(2)
            g = gate @ n
            xs[t] = x + layer.ffn.down.weight @ (g / (1 + (-g).exp()) * (up @ n))
    return torch.stack([rms(x, anchor.norm.gain) for x in xs])


def with_random_gains(anchor: Anchor) -> Anchor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in anchor.named_parameters():
            if name.endswith("gain"):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return anchor


def test_equals_the_slow_reference() -> None:
    anchor = with_random_gains(Anchor(CONFIG, 20, seed=0)).double()
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
    fast = anchor(tokens, segments, dtype=torch.float64)
    slow = torch.stack(
        [slow_hidden(anchor, t.tolist(), s.tolist()) for t, s in zip(tokens, segments, strict=True)]
    )
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(anchor.logits(fast), slow @ anchor.embedding.T, rtol=1e-9, atol=1e-9)


def test_packed_documents_are_as_alone() -> None:
    """RoPE is relative, so a document deep in a row gives what it gives at the front."""
    anchor = Anchor(CONFIG, 20, seed=0).double()
    first, second = torch.tensor([[3, 1, 4]]), torch.tensor([[1, 5, 9, 2]])
    packed = anchor(
        torch.cat([first, second], 1), torch.tensor([[0, 0, 0, 1, 1, 1, 1]]), dtype=torch.float64
    )
    alone = [anchor(x, torch.zeros_like(x), dtype=torch.float64) for x in (first, second)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-9, atol=1e-9)


def test_the_future_is_not_seen() -> None:
    anchor = Anchor(CONFIG, 20, seed=0)
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    changed = tokens.clone()
    changed[0, 3:] = 7
    segments = torch.zeros_like(tokens)
    assert torch.equal(anchor(tokens, segments)[:, :3], anchor(changed, segments)[:, :3])
    assert not torch.equal(anchor(tokens, segments)[:, 3:], anchor(changed, segments)[:, 3:])


def test_gradients_by_finite_differences() -> None:
    anchor = with_random_gains(Anchor(CONFIG, 8, seed=0)).double()
    tokens, segments = torch.tensor([[3, 1, 4, 1]]), torch.tensor([[0, 0, 0, 1]])
    weight = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value() -> Tensor:
        return (anchor(tokens, segments, dtype=torch.float64)[0] * weight).sum()

    value().backward()
    step = 1e-6
    for parameter in anchor.parameters():
        flat, grad = parameter.data.view(-1), parameter.grad
        assert grad is not None
        for index in range(0, len(flat), max(1, len(flat) // 5)):
            old = flat[index].item()
            flat[index] = old + step
            up = value().item()
            flat[index] = old - step
            down = value().item()
            flat[index] = old
            assert abs((up - down) / (2 * step) - grad.view(-1)[index].item()) < 1e-6


def test_arms_share_their_initial_anchor(make_config: Callable[..., RunConfig]) -> None:
    from core.model import Model

    dense = Model(make_config(seed=3), "cpu", "fp32")
    ffn = Model(make_config(seed=3, memory={"type": "ffn", "widths": [2, 1]}), "cpu", "fp32")
    other = Model(make_config(seed=4), "cpu", "fp32")
    for name, tensor in dense.anchor.state_dict().items():
        assert torch.equal(tensor, ffn.anchor.state_dict()[name])
    assert not torch.equal(dense.anchor.embedding, other.anchor.embedding)


def test_fused_attention_is_the_plain_one() -> None:
    anchor = with_random_gains(Anchor(CONFIG, 20, seed=0)).double()
    tokens, segments = torch.tensor([[3, 1, 4, 1, 5]]), torch.tensor([[0, 0, 1, 1, 1]])
    plain = anchor(tokens, segments, dtype=torch.float64)
    anchor.fused = True
    fused = anchor(tokens, segments, dtype=torch.float64)
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)
