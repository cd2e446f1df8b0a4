"""Which waiting trial a free worker takes."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class InOrder(FIFOScheduler):  # type: ignore[misc]
    """The first waiting trial that no worker is starting for; a recovered one keeps its place.

    Tune's own order gives a free worker to the first waiting trial even while another worker starts
    for it, and drops that one. Where trials are shorter than the start of a worker, every start is
    dropped so, and a slot whose worker died stays empty to the end of the sweep.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """None where a worker is on its way to every waiting trial."""
        controller = tune_controller._tune_controller  # Ray offers no public way to ask
        waiting = [t for t in controller.get_trials() if t.status == Trial.PENDING]
        free = (trial for trial in waiting if not _has_worker(controller, trial))
        return min(free, key=lambda trial: trial.trial_id, default=None)  # ids count up


def _has_worker(controller: Any, trial: Trial) -> bool:
    """Whether a worker starts for the trial, or is handed over to it."""
    worker = controller._trial_to_actor.get(trial)
    return worker is not None and controller._actor_manager.is_actor_started(worker)
