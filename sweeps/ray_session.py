"""Ray, started here or joined, and left as it was found."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from core.config import RunConfig, Runtime
from sweeps.interruption import Interruption, unguarded

WORKERS = {
    # glibc gives large blocks back and asks again at every step; keeping them saves page faults.
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    # torch's compiler would start a process a core.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    # Seconds; a point of the curve waits for as long, and so does the end of a trial.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
}


@dataclass(frozen=True)
class Slots:
    """Where and how trials run."""

    runtime: Runtime
    share: dict[str, float]  # of a machine besides memory, for one process of a trial
    scratch: str  # a folder for what Ray keeps of an experiment: records and checkpoints are ours
    unmeasured: RunConfig | None = None  # of which the first trial finds the fastest paths


@contextmanager
def ray_session(interruption: Interruption) -> Iterator[str]:
    """Ray, joined at RAY_ADDRESS or started here, with a scratch folder for it.

    The folder goes once Ray has stopped writing, and Ray's session files if it was ours.
    """
    ours = "RAY_ADDRESS" not in os.environ
    for name in ("ray.tune", "ray.train", "ray.air"):  # the relay says what matters of a failure
        logging.getLogger(name).setLevel(logging.CRITICAL)
    interruption.deferred = True
    with tempfile.TemporaryDirectory(prefix="memscale-", ignore_cleanup_errors=True) as scratch:
        session = _start_ray(ours)
        try:
            yield scratch
        finally:
            ray.shutdown()
            if ours:
                shutil.rmtree(session, ignore_errors=True)


def _start_ray(ours: bool) -> str:
    """The folder of the session. Raises ConnectionError where no Ray answers."""
    try:
        with unguarded():  # nothing runs yet
            context = ray.init(
                address="local" if ours else None,  # none would join what `ray start` left here
                include_dashboard=False if ours else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": WORKERS},
            )
    except Exception as error:  # Ray raises many kinds
        raise ConnectionError(f"Ray does not start: {' '.join(str(error).split())}") from None
    return str(context.address_info["session_dir"])
