"""The speed of this machine, from a few steps on random text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from core.calibrate import measure_rate
from core.config import RunConfig, Runtime
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
