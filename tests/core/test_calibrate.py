"""The speed of this machine, from a few steps on random text."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from core import calibrate
from core.batches import Batch
from core.calibrate import measure_paths, measure_rate
from core.config import Paths, RunConfig, Runtime
from core.gradients import add_gradients
from core.memory.bank import Fetch
from core.model import Model
from core.trainer import Trainer


@pytest.mark.parametrize(
    ("memory", "bank"),
    [({}, "device"), ({"type": "ffn", "widths": [3, 2]}, "device")]
    + [({"type": "ffn", "widths": [3, 2]}, "disk")],
)
def test_it_trains_a_few_steps_of_the_run_itself(
    make_config: Callable[..., RunConfig],
    memory: dict[str, object],
    bank: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[RunConfig] = []
    honest = Trainer.train_step

    def count(self: Trainer, steps: int) -> None:
        trained.append(self.config)
        assert bool(self.model.bank and not self.model.bank.resident()) == (bank == "disk")
        honest(self, steps)

    monkeypatch.setattr(Trainer, "train_step", count)
    config = make_config(memory=memory, train={"tokens": 10**9})
    runtime = Runtime.model_validate({"results": tmp_path, "bank": bank})
    assert measure_rate(config, runtime) > 0
    assert not list(runtime.cache.iterdir())
    assert len(trained) == 50  # the most: steps of so small a model are short
    assert (trained[0].anchor, trained[0].memory) == (config.anchor, config.memory)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """The models whose gradients are asked for."""
    models: list[Model] = []

    def note(model: Model, batch: Batch, fetches: Sequence[Fetch]) -> float:
        models.append(model)
        return add_gradients(model, batch, fetches)

    monkeypatch.setattr(calibrate, "add_gradients", note)
    return models


def test_every_pair_of_paths_is_tried_on_the_anchor_alone(
    make_config: Callable[..., RunConfig], tried: list[Model]
) -> None:
    config = make_config(memory={"type": "ffn", "widths": [3, 2]}, train={"precision": "bf16"})
    assert measure_paths(config, "cpu") in calibrate.ALL_PATHS
    each = tried[:: calibrate.TRIED]
    assert all(model.config.memory.type == "none" for model in tried)
    assert [_paths(model) for model in each] == calibrate.ALL_PATHS


def _paths(model: Model) -> Paths:
    precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    attention = "fused" if model.anchor.fused else "plain"
    return Paths.model_validate({"precision": precision, "attention": attention})


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ((1.0, 2.0, 2.0, 0.9), ("fp32", "fused")),
        ((1.0, 0.99, 2.0, 2.0), ("bf16", "plain")),  # within noise of the usual paths
        ((1.0, 2.0, 0.8, 0.81), ("fp32", "plain")),
    ],
)
def test_the_fastest_paths_win(
    make_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    seconds: tuple[float, ...],
    best: tuple[str, str],
) -> None:
    """bf16 and plain attention are the usual ones here."""
    table = iter(seconds)
    monkeypatch.setattr(calibrate, "_gradient_seconds", lambda *given: next(table))
    monkeypatch.setattr("core.model.resolve_precision", lambda *given: "bf16")
    found = measure_paths(make_config(train={"precision": "auto"}), "cpu")
    assert (found.precision, found.attention) == best


LONG = {"tokens": 10**9, "precision": "auto"}


@pytest.mark.parametrize(
    ("train", "compiled", "wanted"),
    [
        (LONG, 0.9, "compiled"),
        (LONG, 0.96, "eager"),  # within noise
        ({**LONG, "tokens": 10_000}, 0.5, "eager"),  # a short run would only wait for the compiler
        (LONG, RuntimeError("no C++ compiler\nand more"), "eager"),
    ],
)
def test_long_runs_are_compiled_where_that_is_faster(
    make_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    train: dict[str, object],
    compiled: float | Exception,
    wanted: str,
) -> None:
    def seconds(config: RunConfig, runtime: Runtime) -> float:
        if runtime.paths.trunk == "eager":
            return 1.0
        if isinstance(compiled, Exception):
            raise compiled
        return compiled

    monkeypatch.setattr(calibrate, "_gradient_seconds", seconds)
    assert measure_paths(make_config(train=train), "cpu").trunk == wanted


def test_a_precision_that_a_run_asks_for_stands(
    make_config: Callable[..., RunConfig], tried: list[Model]
) -> None:
    runtime = Runtime(paths=Paths(precision="fp32"))
    for precision in ("auto", "bf16"):
        calibrate._gradient_seconds(make_config(train={"precision": precision}), runtime)
    wanted = ["fp32"] * calibrate.TRIED + ["bf16"] * calibrate.TRIED
    assert [_paths(model).precision for model in tried] == wanted
