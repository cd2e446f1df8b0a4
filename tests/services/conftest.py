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
from pyarrow.fs import FileSystem

from tests.sweeps.conftest import corpus, private, tiny, write_grid

__all__ = ["corpus", "private", "tiny", "write_grid"]


INSTALL = "pip install -r tests/services/requirements.lock"


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the server answers."""
    while True:
        assert server.poll() is None, f"{address}: its server has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)


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
        wait_for(f"{self.uri}/health", self.process)

    def kill(self) -> None:
        """SIGKILL to the server and all its workers."""
        if self.process:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.process = None


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a folder in an empty S3 bucket; the AWS_ variables of its store are set."""
    pytest.importorskip("moto", reason=INSTALL)
    port = free_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
    }.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(f"http://127.0.0.1:{port}/moto-api/", server)
    FileSystem.from_uri("s3://memscale?allow_bucket_creation=true")[0].create_dir("memscale")
    yield "s3://memscale/study"
    server.kill()
    server.wait()


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    pytest.importorskip("psycopg2", reason=INSTALL)
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
