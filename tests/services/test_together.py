"""A sweep whose trials train in two processes each, one of which is killed."""

import time
from pathlib import Path

import pytest

from core.record import read_runs
from tests.faults.sweep import Sweep
from tests.sweeps.test_end_to_end import tracked


class Together(Sweep):
    """Each trial in two processes."""

    def command(self) -> list[str]:
        return [*super().command(), "--device", "cpu", "--processes", "2"]

    def workers(self) -> list[int]:
        found = self.processes(self.starts).items()
        return [pid for pid, line in found if line.startswith("ray::RayTrainWorker")]


@pytest.mark.services
def test_trials_of_two_processes_end_where_trials_of_one_do(tiny: Path, tmp_path: Path) -> None:
    longer = "tokens: 30_000, lr: 1e-3, precision: fp32"  # rounding has not grown to chaos yet
    tiny.write_text(tiny.read_text().replace("tokens: 20_000", longer))
    sweep, alone = Together(tiny, tmp_path / "two", 1), Sweep(tiny, tmp_path / "one", 1)
    try:
        sweep.reach_training()
        while not list(sweep.results.glob("runs/*/checkpoints/step-*")):
            assert sweep.driver and sweep.driver.poll() is None, sweep.last_lines()
            time.sleep(0.1)
        sweep.kill(sweep.workers()[-1])
        assert sweep.wait() == 0, sweep.last_lines()
        alone.run()
    finally:
        sweep.stop()
        alone.stop()
    assert "worker lost" in sweep.last_lines()
    tables = [
        read_runs(results / "tiny" / "runs.csv") for results in (alone.results, sweep.results)
    ]
    expected, found = (table.set_index("run_id") for table in tables)
    assert list(found["status"]) == ["done"] * 2
    assert sorted(found["attempts"]) == [1, 2]
    losses = [name for name in found.columns if name.startswith(("loss_", "tokens"))]
    assert (found[losses] - expected[losses]).abs().max().max() < 1e-3
    assert tracked(sweep.results) == tracked(alone.results)
