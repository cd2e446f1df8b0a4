"""What a GPU trains is what a CPU trains, but for rounding, on each of its paths."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.batches import Batches
from core.calibrate import measure_paths, random_text
from core.config import Paths, RunConfig, Runtime
from core.dataset import Dataset
from core.gradients import add_gradients
from core.load import load_run
from core.model import Model
from core.record import KEYS, RunRecord
from core.train import train_run
from tests.core.small_runs import MEMORIES
from tests.core.test_train import Killed, kill

pytestmark = pytest.mark.gpu
Make = Callable[..., RunConfig]
PATHS = [
    Paths.model_validate({"precision": "fp32", "attention": attention, "trunk": trunk})
    for attention, trunk in product(("plain", "fused"), ("eager", "compiled"))
]
PLACES = ("device", "host", "disk")
SHORT = {"tokens": 10 * 64}


@pytest.fixture(autouse=True)
def exact() -> None:
    """fp32 products in fp32, not in TF32."""
    torch.set_float32_matmul_precision("highest")


def gradients(config: RunConfig, device: str, paths: Paths) -> dict[str, Tensor]:
    """Of a first step, the loss with them, on the host."""
    model = Model.on_paths(config, device, paths)
    batch = Batches(config, random_text(config, 8).train, device).at(0)
    fetches = model.fetch(batch.path_bl)
    found = {"loss": torch.tensor(add_gradients(model, batch, fetches))}
    found |= {name: p.grad for name, p in model.dense_parameters() if p.grad is not None}
    found |= {f"rows {n}": g.values for n, g in enumerate(model.row_gradients(fetches))}
    return {name: x.detach().float().cpu() for name, x in found.items()}


@pytest.mark.parametrize("paths", PATHS, ids=lambda p: f"{p.attention}-{p.trunk}")
@pytest.mark.parametrize("name", MEMORIES)
def test_gradients_are_those_of_a_cpu(
    make_config: Make, device: str, name: str, paths: Paths
) -> None:
    config = make_config(memory=MEMORIES[name])
    wanted, found = (gradients(config, *on) for on in (("cpu", PATHS[0]), (device, paths)))
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert (found[key] - value).norm() <= 1e-4 * value.norm(), key


@pytest.mark.parametrize("name", MEMORIES)
def test_bf16_is_near(make_config: Make, device: str, name: str) -> None:
    config = make_config(memory=MEMORIES[name], train={"precision": "bf16"})
    wanted, found = (gradients(config, on, Paths()) for on in ("cpu", device))
    assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-2)


@pytest.fixture
def train(
    dataset: Dataset, tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunRecord, Path]]:
    monkeypatch.setattr("core.train.prepare", lambda *given: dataset)

    def train(
        config: RunConfig, name: str, kill_at: float = 1e9, **where: Any
    ) -> tuple[RunRecord, Path]:
        def on_log(point: dict[str, float]) -> None:
            if point["step"] >= kill_at:
                kill()

        values = {"device": device, "checkpoint_seconds": 0.0, **where}
        runtime = Runtime.model_validate(values)
        return train_run(config, runtime, tmp_path / name, on_log), tmp_path / name

    return train


def alike(one: RunRecord, other: RunRecord) -> None:
    for column in ["loss_train", *(f"loss_test_{key}" for key in KEYS["test"])]:
        expected = pytest.approx(getattr(other, column), rel=1e-4, nan_ok=True)
        assert getattr(one, column) == expected, column


@pytest.mark.parametrize(("name", "weights"), [("ffn", "fp32"), ("ffn", "bf16"), ("kv", "fp32")])
def test_wherever_the_bank_lies(
    make_config: Make, train: Callable[..., tuple[RunRecord, Path]], name: str, weights: str
) -> None:
    config = make_config(memory={**MEMORIES[name], "weights": weights}, train=SHORT)
    on_cpu, _ = train(config, "cpu", device="cpu")
    for place in PLACES:
        record, _ = train(config, place, bank=place)
        alike(record, on_cpu)


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_run_goes_on(
    make_config: Make, train: Callable[..., tuple[RunRecord, Path]], device: str, place: str
) -> None:
    config = make_config(memory=MEMORIES["ffn"], train=SHORT)
    whole, _ = train(config, "whole", bank=place)
    with pytest.raises(Killed):
        train(config, "killed", kill_at=6, bank=place)
    resumed, folder = train(config, "killed", bank=place)
    assert resumed.attempts == 2
    alike(resumed, whole)
    assert load_run(folder, device).fetch(torch.zeros(1, 2, dtype=torch.long, device=device))


def test_paths_are_measured(make_config: Make, device: str) -> None:
    config = make_config(train={"tokens": 10**9, "precision": "auto"})
    assert measure_paths(config, device).precision in ("bf16", "fp32")
