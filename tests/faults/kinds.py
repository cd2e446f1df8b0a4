"""The faults: each harms a sweep that trains, and returns when the harm is done."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults.sweep import Sweep

SMALL = 2**30  # bytes; a larger disk is not ours to fill


def kill_trial(sweep: Sweep, draw: random.Random) -> None:
    """SIGKILL of a worker in the middle of its run."""
    if workers := sweep.workers():
        sweep.kill(draw.choice(workers))


def kill_driver(sweep: Sweep, draw: random.Random) -> None:
    """SIGKILL of the driver."""
    assert sweep.driver is not None
    sweep.driver.kill()
    sweep.wait()


def kill_head(sweep: Sweep, draw: random.Random) -> None:
    """SIGKILL of Ray's control store or of its scheduler: the driver cannot go on, and ends."""
    if head := sweep.head():
        sweep.kill(draw.choice(head))
    sweep.wait()


def truncate_checkpoints(sweep: Sweep, draw: random.Random) -> None:
    """The newest checkpoint of every unfinished run loses its end, before a driver reads it."""
    kill_driver(sweep, draw)
    while sweep.processes():
        time.sleep(0.1)
    for folder in sweep.results.glob("runs/*/checkpoints"):
        newest = max(folder.glob("step-*/tensors.safetensors"), default=None)
        if newest and not (folder.parent / "record.json").exists():
            os.truncate(newest, draw.randrange(newest.stat().st_size))


def lock_database(sweep: Sweep, draw: random.Random) -> None:
    """Another program holds MLflow's database, or its empty file before MLflow makes it."""
    database = sqlite3.connect(sweep.results / "mlflow.db", timeout=60, isolation_level=None)
    database.execute("begin exclusive")
    time.sleep(draw.uniform(1, 8))
    database.rollback()
    database.close()


def fill_disk(sweep: Sweep, draw: random.Random) -> None:
    """No byte is left for some seconds."""
    ballast = sweep.results.parent / "ballast"
    _fill(ballast)
    time.sleep(draw.uniform(1, 5))
    ballast.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    disk = os.statvfs(path.parent)
    assert disk.f_blocks * disk.f_frsize <= SMALL
    with suppress(OSError), path.open("wb", buffering=0) as file:  # it may be full already
        while True:
            file.write(bytes(2**16))


def widen_grid(sweep: Sweep, draw: random.Random) -> None:
    """Ctrl-C, and the same command with more seeds."""
    assert sweep.driver is not None
    sweep.driver.send_signal(signal.SIGINT)
    assert sweep.wait() in (0, 1, 130)
    sweep.seeds += 1


def start_second_driver(sweep: Sweep, draw: random.Random) -> None:
    """It is refused and says why."""
    second = sweep.second()
    assert second.returncode == 2, second.stderr
    assert "another sweep runs in" in second.stderr


# How often each strikes.
KINDS: dict[Callable[[Sweep, random.Random], None], int] = {
    kill_trial: 16,
    kill_driver: 8,
    kill_head: 6,
    truncate_checkpoints: 6,
    lock_database: 6,
    fill_disk: 6,
    widen_grid: 4,
    start_second_driver: 6,
}
