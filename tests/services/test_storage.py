"""An S3 store between machines that share no folder: killed on one, a sweep goes on on another."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from pyarrow.fs import FileSelector, FileSystem
from ray.cluster_utils import Cluster

from core.paths import PATHS
from core.record import INCIDENTAL, read_runs

Node = subprocess.Popen[bytes]


@pytest.fixture
def two(tiny: Path) -> Path:
    """A grid of two runs that train for some seconds."""
    tiny.write_text(tiny.read_text().replace("20_000", "100_000").replace("seeds: 2", "seeds: 1"))
    return tiny


def sweep(command: str, grid: Path, results: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sweeps", command, str(grid), "--results", str(results), *options]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def stored(uri: str, ending: str) -> set[str]:
    """Ids of the runs that have such a file in the store."""
    files, root = FileSystem.from_uri(uri)
    selector = FileSelector(f"{root}/runs", recursive=True, allow_not_found=True)
    paths = [info.path.removeprefix(f"{root}/runs/") for info in files.get_file_info(selector)]
    return {path.split("/")[0] for path in paths if path.endswith(ending)}


@contextmanager
def driver(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [*command, "--checkpoint-seconds", "0.5"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def wait_for_checkpoints(uri: str, started: subprocess.Popen[str]) -> None:
    while len(stored(uri, "tensors.safetensors")) < 2:  # the last file of a checkpoint
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.2)


def check_like_undisturbed(results: Path, grid: Path, whole: Path) -> None:
    """Equal in every column but time, host and attempts, in which the kill must show."""
    (whole / "tiny").mkdir(parents=True)
    shutil.copy(results / "tiny" / PATHS, whole / "tiny")  # else measured anew
    assert run(*sweep("run", grid, whole)).returncode == 0
    ours, theirs = (read_runs(folder / "tiny" / "runs.csv") for folder in (results, whole))
    assert list(ours["status"]) == ["done"] * 2
    assert ours["attempts"].max() > 1
    columns = [name for name in ours.columns if name not in INCIDENTAL]
    assert ours[columns].equals(theirs[columns])


@pytest.mark.services
def test_a_sweep_goes_on_from_the_store(bucket: str, two: Path, tmp_path: Path) -> None:
    results = [tmp_path / name for name in ("one", "two", "three")]
    with driver(sweep("run", two, results[0], "--storage", bucket)) as first:
        wait_for_checkpoints(bucket, first)
    assert not stored(bucket, "record.json")

    done = run(*sweep("run", two, results[1], "--storage", bucket))
    assert done.returncode == 0, done.stdout + done.stderr
    check_like_undisturbed(results[1], two, tmp_path / "whole")
    for ending in ("record.json", "config.yaml", "curve.csv", "model.safetensors"):
        assert len(stored(bucket, ending)) == 2

    status = run(*sweep("status", two, results[2], "--storage", bucket))
    assert "nothing left to run" in status.stdout, status.stderr
    found = run(*sweep("run", two, results[2], "--storage", bucket))
    assert "2 done" in found.stdout, found.stderr
    assert not list(results[2].glob("runs/*/checkpoints"))
    plots = run(sys.executable, "-m", "analysis", "plots", "tiny", "--results", str(results[2]))
    assert plots.returncode == 0, plots.stdout + plots.stderr
    assert (results[2] / "tiny" / "report.html").exists()


@pytest.fixture
def nodes(private: list[str], bucket: str, tmp_path: Path) -> Iterator[tuple[str, list[Node]]]:
    """A cluster of two nodes that see the bucket, and each a results folder of its own."""
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    results = tmp_path / "results"
    results.mkdir()
    ray_start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
    story = 'mount -t tmpfs none "$0" && exec "$@"'
    alone = [*private, "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", story]
    started: list[Node] = []
    with ray.init(address=head.address, log_to_driver=False):
        while (joined := len(ray.nodes())) < 3:  # one by one: two at once take the same ports
            if len(started) < joined:
                command = [*alone, str(results), *ray_start, "--address", head.address]
                started.append(subprocess.Popen(command))
            assert all(node.poll() is None for node in started)
            time.sleep(0.5)
    yield head.address, started
    for node in started:
        node.kill()
        node.wait()
    head.shutdown()


@pytest.mark.services
def test_a_node_is_lost_where_no_folder_is_shared(
    nodes: tuple[str, list[Node]], bucket: str, two: Path, tmp_path: Path
) -> None:
    address, started = nodes
    command = sweep("run", two, tmp_path / "results", "--storage", bucket)
    with driver(command, RAY_ADDRESS=address) as ours:
        wait_for_checkpoints(bucket, ours)
        started[0].kill()
        printed = ours.communicate()[0]
    assert ours.returncode == 0, printed
    assert "worker lost" in printed
    left = {path.name for path in (tmp_path / "results" / "runs").glob("*/*")}
    assert left == {"config.yaml", "paths.yaml", "curve.csv", "record.json", "delivered"}
    started[1].kill()  # without RAY_ADDRESS a sweep does not wait for the cluster that is here
    check_like_undisturbed(tmp_path / "results", two, tmp_path / "whole")


@pytest.mark.services
def test_a_store_that_is_not_there(bucket: str, two: Path, tmp_path: Path) -> None:
    """One line, nothing started, nothing written."""
    missing = run(*sweep("run", two, tmp_path / "results", "--storage", "s3://missing/study"))
    down = subprocess.run(
        sweep("run", two, tmp_path / "results", "--storage", bucket),
        env=os.environ | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    for refused, cause in ((missing, "Bucket 'missing' not found"), (down, "Could not connect")):
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert cause in refused.stderr
    assert not (tmp_path / "results").exists()
