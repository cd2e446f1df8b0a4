"""Servers on this machine that a test starts and ends."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.sweeps.conftest import corpus, tiny, write_grid

__all__ = ["corpus", "tiny", "write_grid"]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TrackingServer:
    """`mlflow server` on loopback, over a database that outlives it."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self.command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--backend-store-uri", database, "--artifacts-destination", str(folder)]
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, start_new_session=True
            )
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the server and all its workers."""
        if self.process:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("initdb") or "x").parent]
    if not (binaries := [folder for folder in found if (folder / "initdb").exists()]):
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on this machine")
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    control = [*_as_another_user(folder), str(binaries[0] / "pg_ctl"), "-D", str(folder / "data")]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    trust = ["-o", "--auth=trust --username=memscale"]
    subprocess.run([*control, *trust, "initdb"], check=True, capture_output=True)
    log = str(folder / "log")
    subprocess.run([*control, "-w", "-l", log, "-o", options, "start"], check=True)
    yield f"postgresql+psycopg2://memscale@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True)
    shutil.rmtree(folder)


def _as_another_user(folder: Path) -> list[str]:
    """PostgreSQL does not run as root."""
    if os.geteuid():
        return []
    folder.chmod(0o755)
    shutil.chown(folder, "nobody")
    return ["runuser", "-u", "nobody", "--"]
