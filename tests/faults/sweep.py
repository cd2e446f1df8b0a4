"""A sweep that a test starts, watches and harms."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "MEMSCALE_FAULTS"  # in the environment of everything that a sweep starts
PATIENCE = 600.0  # seconds until a sweep that should end or start has hung


class Sweep:
    """One grid in one results folder; `seeds` widens it from start to start."""

    def __init__(self, grid: Path, results: Path, seeds: int) -> None:
        self.grid, self.results, self.seeds = grid, results, seeds
        self.driver: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.log = grid.with_name(f"{results.name}.log")

    def command(self) -> list[str]:
        """The command line that a person would give."""
        given = {"--results": self.results, "--seeds": self.seeds, "--checkpoint-seconds": 0.3}
        options = [str(part) for option in given.items() for part in option]
        return [sys.executable, "-m", "sweeps", "run", str(self.grid), *options]

    def start(self) -> None:
        """Begin, or go on."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=self._environment(), process_group=0
            )

    def stop(self) -> dict[int, str]:
        """End what has not ended by itself a minute after its driver, and say what that was."""
        limit = time.monotonic() + 60
        while self.driver is None and self.processes() and time.monotonic() < limit:
            time.sleep(0.1)
        left = self.processes()
        for pid in left:
            self.kill(pid)
        return left

    def run(self) -> None:
        """Start again until all runs are finished."""
        for _ in range(5):
            if self.driver is None:
                self.start()
            if self.wait() == 0:
                return
        raise AssertionError(f"not finished after five sweeps: {self.last_lines()}")

    def wait(self) -> int:
        """The exit status of the driver."""
        assert self.driver is not None
        status = self.driver.wait(PATIENCE)
        self.driver = None
        return status

    def second(self) -> subprocess.CompletedProcess[str]:
        """Another driver on the same folder."""
        return subprocess.run(
            self.command(), capture_output=True, text=True, env=self._environment(), check=False
        )

    def reach_training(self) -> None:
        """Return while a trial trains; start what ended and widen what is finished."""
        limit = time.monotonic() + PATIENCE
        while not (self.driver and self.workers()):
            assert time.monotonic() < limit, self.last_lines()
            if self.driver is None:
                self.start()
            elif self.driver.poll() is not None:
                self.seeds += 2 if self.wait() == 0 else 0
            time.sleep(0.1)

    def workers(self) -> list[int]:
        """Processes that train for the present driver."""
        found = self.processes(self.starts).items()
        return [pid for pid, line in found if line.startswith("ray::Impl")]

    def head(self) -> list[int]:
        """Ray's own processes without which nothing is scheduled for the present driver."""
        names = ("gcs_server", "raylet/raylet")
        found = self.processes(self.starts).items()
        return [pid for pid, line in found if any(name in line.split(" ")[0] for name in names)]

    def processes(self, start: int | None = None) -> dict[int, str]:
        """Command lines of all that belongs to this sweep, or to one start of it."""
        mark = f"{MARK}={self.results} " + (f"{start} " if start else "")
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in _words(folder / "environ", "\n"):
                    found[int(folder.name)] = _words(folder / "cmdline", " ")
            except OSError:
                continue  # it ended meanwhile
        return found

    def kill(self, pid: int) -> None:
        """SIGKILL; a process that ended just before is as dead."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def last_lines(self) -> str:
        """The end of what the drivers printed."""
        return self.log.read_text()[-2000:]

    def _environment(self) -> dict[str, str]:
        dropped = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return kept | {MARK: f"{self.results} {self.starts} ", "OMP_NUM_THREADS": "1"}


def _words(path: Path, between: str) -> str:
    return path.read_bytes().decode(errors="replace").replace("\0", between)
