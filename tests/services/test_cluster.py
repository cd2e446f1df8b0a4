"""A Ray cluster of three nodes, one of which is killed in the middle of a sweep."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from core.record import read_runs


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head and two more nodes, of one core each, all on loopback."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.mark.services
def test_a_node_is_lost(cluster: Cluster, tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("20_000", "400_000"))
    results = tmp_path / "results"
    command = [sys.executable, "-m", "sweeps", "run", str(tiny), "--results", str(results)]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    driver = subprocess.Popen(
        [*command, "--checkpoint-seconds", "0.5"],
        env=environment | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Each node's run has a checkpoint to go on from.
    while len({kept.parent for kept in results.glob("runs/*/checkpoints/step-*")}) < 3:
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.1)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    printed = driver.communicate()[0]
    assert driver.returncode == 0, printed
    assert "worker lost" in printed
    table = read_runs(results / "tiny" / "runs.csv")
    assert list(table["status"]) == ["done"] * 4
    assert table["attempts"].max() > 1
