"""The speed of this machine, from a few steps on random text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core import calibrate
from core.calibrate import measure_paths, measure_rate
from core.config import Paths, RunConfig, Runtime
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


def test_the_fastest_paths_win(
    make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair is tried on the anchor alone, and trained as it says."""
    tried: list[Paths] = []
    honest = Trainer.train_step

    def note(self: Trainer, steps: int) -> None:
        attention = "fused" if self.model.anchor.fused else "plain"
        tried.append(Paths(precision=self.precision, attention=attention))
        assert self.config.memory.type == "none"
        honest(self, steps)

    def seconds(config: RunConfig, runtime: Runtime) -> float:
        return measured(config, runtime) if runtime.paths.precision == "bf16" else -1.0

    measured = calibrate._step_seconds
    monkeypatch.setattr(Trainer, "train_step", note)
    config = make_config(memory={"type": "ffn", "widths": [3, 2]}, train={"precision": "bf16"})
    assert measure_paths(config, "cpu") in set_of_paths()
    assert [tried[n] for n in range(0, len(tried), calibrate.TRIED)] == set_of_paths()
    monkeypatch.setattr(calibrate, "_step_seconds", seconds)
    assert measure_paths(config, "cpu").precision == "fp32"


def set_of_paths() -> list[Paths]:
    return [
        Paths(precision=precision, attention=attention)
        for precision in ("bf16", "fp32")
        for attention in ("plain", "fused")
    ]


def test_a_precision_that_a_run_asks_for_stands(
    make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, found = Runtime(paths=Paths(precision="fp32")), []
    monkeypatch.setattr(Trainer, "train_step", lambda self, steps: found.append(self.precision))
    for precision in ("auto", "bf16"):
        config = make_config(train={"precision": precision})
        calibrate._step_seconds(config, runtime)
    assert found == ["fp32"] * calibrate.TRIED + ["bf16"] * calibrate.TRIED
