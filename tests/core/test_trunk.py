"""Layers that torch's compiler takes: the same gradients, compiled once for layers alike."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from core.anchor import Anchor
from core.batches import Batch, Batches
from core.calibrate import random_text
from core.config import Paths, RunConfig
from core.dataset import Dataset
from core.evaluate import evaluate
from core.gradients import add_gradients
from core.model import Model
from tests.core.small_runs import MEMORIES

NOT_COMPILED = ("pkm", "moe")


class Traced:
    """In place of a compiler: runs what was traced, and counts the graphs and their calls."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(
        self, graph: torch.fx.GraphModule, inputs: list[Tensor]
    ) -> Callable[..., tuple[Tensor, ...]]:
        self.graphs += 1

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            self.calls += 1
            return graph.forward(*given)

        return run


@pytest.fixture
def traced() -> Iterator[Traced]:
    counters.clear()
    yield Traced()
    torch.compiler.reset()


def gradients(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Of the mean loss by every dense weight and fetched row, and the loss itself."""
    fetches = model.fetch(batch.path_bl)
    found = {"loss": torch.tensor(add_gradients(model, batch, fetches))}
    found |= {name: p.grad for name, p in model.dense_parameters() if p.grad is not None}
    return found | {f"rows {n}": g.values for n, g in enumerate(model.row_gradients(fetches))}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MEMORIES)
def test_the_same_gradients(
    make_config: Callable[..., RunConfig], traced: Traced, name: str, precision: str
) -> None:
    config = make_config(memory=MEMORIES[name])
    batch = Batches(config, random_text(config, 8).train, "cpu").at(0)
    eager, compiled = (Model(config, "cpu", precision) for _ in range(2))
    compiled.anchor.compile_trunk(traced)
    wanted, found = gradients(eager, batch), gradients(compiled, batch)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        near = 1e-5 if precision == "fp32" else 0.03
        assert (found[key] - value).norm() <= near * value.norm(), key
    layers = 0 if name in NOT_COMPILED else config.anchor.layers
    assert (traced.graphs, traced.calls) == (min(1, layers), layers)
    assert not counters["graph_break"]


def test_layers_with_memory_and_without_are_two_graphs(
    make_config: Callable[..., RunConfig], traced: Traced
) -> None:
    config = make_config(
        anchor={"size": "d16", "layers": 4}, memory={**MEMORIES["ffn"], "placement": "every-2"}
    )
    model = Model(config, "cpu", "fp32")
    model.anchor.compile_trunk(traced)
    batches = Batches(config, random_text(config, 8).train, "cpu")
    for step in range(3):
        gradients(model, batches.at(step))
    assert (traced.graphs, traced.calls) == (2, 3 * config.anchor.layers)


def test_held_out_text_is_read_without_the_compiler(
    make_config: Callable[..., RunConfig], traced: Traced, dataset: Dataset
) -> None:
    config = make_config(memory=MEMORIES["ffn"])
    model, same = (Model(config, "cpu", "fp32") for _ in range(2))
    model.anchor.compile_trunk(traced)
    assert evaluate(model, dataset, config) == evaluate(same, dataset, config)
    assert traced.graphs == 0


def test_a_worker_compiles_each_run_anew(
    make_config: Callable[..., RunConfig], traced: Traced
) -> None:
    """torch gives up on a function after eight kinds of input, and runs of a grid have more."""
    for d_model in range(8, 32, 2):
        anchor = {"layers": 2, "d_model": d_model, "heads": 1, "head_dim": 4, "ffn": 8}
        config = make_config(anchor=anchor)
        model = Model(config, "cpu", "fp32")
        model.anchor.compile_trunk(traced)
        gradients(model, Batches(config, random_text(config, 8).train, "cpu").at(0))
    assert (traced.graphs, traced.calls) == (12, 24)


@pytest.mark.parametrize("trunk", ["eager", "compiled"])
def test_the_paths_say_which(
    make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, trunk: str
) -> None:
    asked: list[Anchor] = []
    monkeypatch.setattr(Anchor, "compile_trunk", lambda own: asked.append(own))
    model = Model.on_paths(make_config(), "cpu", Paths.model_validate({"trunk": trunk}))
    assert asked == ([model.anchor] if trunk == "compiled" else [])
