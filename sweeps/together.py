"""One trial over several processes: Ray Train starts them inside the trial."""

import tempfile
from collections.abc import Sequence
from typing import Any

import ray
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback  # Ray has no public name
from ray.tune.integration.ray_train import TuneReportCallback

from core import parallel
from core.errors import InputError
from sweeps.trial import Reports, settings_of, train_trial

# Bytes of the trial itself, which waits for its processes: Python with torch and Ray Train.
OWN_SLOT = {"memory": 600_000_000}
# Seconds that a process may wait for another, which may wait for a run that others train.
PATIENCE = 86_400


def room(processes: int, slots: Sequence[dict[str, float]]) -> int:
    """Trials that Ray can run at once; each process of one takes its slot among `slots`.

    Raises InputError where that is none: Ray would wait for ever.
    """
    largest = {name: max(slot[name] for slot in slots) for name in slots[0]}
    needed = {n: processes * each + OWN_SLOT.get(n, 0) for n, each in largest.items()}
    held = {name: ray.cluster_resources().get(name, 0) for name in needed}
    found = min(int(held[name] / each) for name, each in needed.items())
    if not found:
        raise InputError(f"processes {processes}: they take {needed}, Ray has {held}; give fewer")
    return found


def run_together(point: dict[str, str]) -> None:
    """What Ray Tune calls in place of `sweeps.trial.run_trial`.

    An exception in a process is reported as the run's failure; the death of one comes back as an
    error, and Ray tries again.
    """
    with tempfile.TemporaryDirectory(prefix="memscale-") as scratch:
        try:
            _trainer(settings_of(point), scratch).fit()
        except train.WorkerGroupError as error:
            tune.report({"failure": _cause(error)})


def _trainer(given: dict[str, Any], scratch: str) -> TorchTrainer:
    slot = given["slot"]
    return TorchTrainer(
        _train_share,
        train_loop_config=given,
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if "GPU" in slot else "gloo", timeout_s=PATIENCE
        ),
        scaling_config=train.ScalingConfig(
            num_workers=given["runtime"]["processes"],
            use_gpu="GPU" in slot,
            resources_per_worker=slot,
        ),
        run_config=train.RunConfig(
            name=given["run_id"], storage_path=scratch, callbacks=[TuneReportCallback()]
        ),
    )


def _train_share(given: dict[str, Any]) -> None:
    """What each process does."""
    train_trial(given, Reports(train.report, parallel.from_first))  # all report, or none


def _cause(error: train.WorkerGroupError) -> str:
    """What the exception says. Raises the error where a process died."""
    failures = list(error.worker_failures.values())
    if not all(isinstance(failure, UserExceptionWithTraceback) for failure in failures):
        raise error
    return str(failures[0]).strip().splitlines()[-1]
