"""Texts read as they grow, by every type of memory, against texts read whole."""

from collections.abc import Callable
from operator import is_

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.anchor import Anchor
from core.config import RunConfig
from core.generate import continue_texts
from core.memory.bank import Fetch
from core.model import Model
from tests.core.small_runs import MEMORIES

Make = Callable[..., RunConfig]
STARTS = [[0, 5, 17, 3], [0], [0, 9, 9, 250, 31, 8, 8], [0, 44]]
PATHS = np.array([[0, 1], [1, 2], [0, 0], [1, 3]], np.int32)
NEW = 6
MERGED = ("ffn", "generic", "lora-qk", "lora-vo", "lora-ffn")


def randomised(config: RunConfig, precision: str = "fp32") -> Model:
    """A model whose memory does something everywhere."""
    model = Model(config, "cpu", precision)
    generator = torch.Generator().manual_seed(1)
    tables = list(model.bank.resident().values()) if model.bank else []
    weights = [table.rows for table in tables]
    if model.token_memory:
        weights += [table.rows for table in model.token_memory.tables.values()]
        weights += list(model.token_memory.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return model


def fetch(model: Model, rows: list[int]) -> list[Fetch]:
    return model.fetch(torch.from_numpy(PATHS[rows].astype(np.int64)))


@torch.no_grad()
def whole(model: Model, ids: list[int], fetches: list[Fetch] | None) -> Tensor:
    """Hidden states [t, d] of a text read at once."""
    tokens = torch.tensor([ids])
    return model.hidden(tokens, torch.zeros_like(tokens), fetches)[0]


def slowly(model: Model, row: int, on: bool, context: int) -> list[int]:
    """Greedy tokens, each from a text read from its beginning."""
    fetches = fetch(model, [row]) if on else None
    ids = list(STARTS[row])
    for _ in range(NEW):
        hidden_td = whole(model, ids[-context:], fetches)
        ids.append(int(F.linear(hidden_td[-1], model.head_vd).argmax()))
    return ids[len(STARTS[row]) :]


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.parametrize("context", [5, 16])
def test_texts_grow_as_if_read_anew(make_config: Make, name: str, context: int) -> None:
    """In one batch of several paths and alone, where memory is merged; some outgrow 5 tokens."""
    model = randomised(make_config(memory=MEMORIES[name]))
    expected = [slowly(model, row, True, context) for row in range(len(STARTS))]
    assert continue_texts(model, STARTS, PATHS, NEW, context) == expected
    alone = [
        continue_texts(model, [start], PATHS[[row]], NEW, context)[0]
        for row, start in enumerate(STARTS)
    ]
    assert alone == expected


@pytest.mark.parametrize("name", ["none", "ffn", "ngram"])
def test_texts_grow_with_memory_off(make_config: Make, name: str) -> None:
    model = randomised(make_config(memory=MEMORIES[name]))
    expected = [slowly(model, row, False, 16) for row in range(len(STARTS))]
    assert continue_texts(model, STARTS, None, NEW, 16) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MEMORIES)
@torch.no_grad()
def test_a_text_read_in_parts(make_config: Make, name: str, precision: str) -> None:
    """Each part has the hidden states that it has in the whole, to the precision's rounding."""
    model = randomised(make_config(memory=MEMORIES[name]), precision)
    ids = [0, 9, 9, 250, 31, 8, 8, 77, 12, 14, 299, 5, 5, 1]
    fetches = fetch(model, [2])
    reader = model.reader(fetches)
    parts, ends = [], (5, 6, 7, 14)
    for end in ends:
        tokens = torch.tensor([ids[:end]])
        parts.append(reader.read(tokens, torch.zeros_like(tokens))[0])
    assert [len(part) for part in parts] == np.diff(ends, prepend=0).tolist()
    found, expected = torch.cat(parts), whole(model, ids, fetches)
    if precision == "fp32":
        assert torch.allclose(found, expected, atol=2e-5)
    else:  # 8 bits of mantissa; a discrete choice may fall otherwise
        assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


@torch.no_grad()
def test_a_changed_text_is_read_anew(make_config: Make) -> None:
    model = randomised(make_config(memory=MEMORIES["ffn"]))
    reader = model.reader(fetch(model, [0]))
    for ids in ([0, 5, 6], [0, 5, 7, 8], [0, 5], [3, 5, 7]):
        tokens = torch.tensor([ids])
        found = reader.read(tokens, torch.zeros_like(tokens))[0]
        assert torch.allclose(found, whole(model, ids, fetch(model, [0])), atol=1e-5)


def shares_weights(model: Model, rows: list[int]) -> bool:
    """Whether the documents are read with the model's own weights."""
    trunk = model.reader(fetch(model, rows)).trunk
    assert isinstance(trunk, Anchor)
    return all(map(is_, trunk.parameters(), model.anchor.parameters()))


@pytest.mark.parametrize("name", ["none", "generic", "ffn", "kv", "lora-qk", "lora-ffn", "pkm"])
def test_what_is_merged(make_config: Make, name: str) -> None:
    """A sum of weights, for one path; the model that trains keeps its own weights."""
    model = randomised(make_config(memory=MEMORIES[name]))
    before = {key: tensor.clone() for key, tensor in model.state().items()}
    assert shares_weights(model, [0]) == (name not in MERGED)
    assert shares_weights(model, [0, 1]) == (name != "generic")  # one block for all
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state().items())


def test_a_merged_ffn_is_a_wider_one(make_config: Make) -> None:
    """As wide as the dense model of the same runtime parameters, with the same other weights."""
    model = randomised(make_config(memory=MEMORIES["ffn"]))
    trunk = model.reader(fetch(model, [0])).trunk
    assert isinstance(trunk, Anchor)
    wider = model.config.anchor.model_copy(update={"ffn": model.config.anchor.ffn + 3 + 2})
    dense = Anchor(wider, model.config.data.vocab_size, seed=0)
    shapes = {name: weight.shape for name, weight in dense.named_parameters()}
    assert {name: weight.shape for name, weight in trunk.named_parameters()} == shapes
    assert trunk.embedding is model.anchor.embedding
