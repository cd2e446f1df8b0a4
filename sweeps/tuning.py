"""Ray Tune runs the trials; our store says what is done.

`Tuner.restore` would drop the new points of a widened grid, so it is not used.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray import tune

from sweeps.grid import Grid, Trial
from sweeps.interruption import Interruption
from sweeps.needs import reserved
from sweeps.progress import Watcher
from sweeps.ray_session import Slots
from sweeps.relay import RETRIES, Relay
from sweeps.scheduling import EarlyStopping, tune_run_id
from sweeps.store import Store
from sweeps.trial import as_grid, own_slot, run_trial, trial_settings


def tune_trials(
    grid: Grid,
    pending: Sequence[Trial],
    store: Store,
    slots: Slots,
    watchers: Sequence[Watcher],
    interruption: Interruption,
) -> None:
    """Run `pending` to its end."""
    settings = list(_settings(grid, pending, store, slots))
    trainable, at_once = _trainable(slots.runtime.processes, settings)
    scheduler = EarlyStopping(grid, store, pending)
    relay = Relay(pending, store, watchers, interruption, scheduler.stopped)
    tune.Tuner(
        trainable,
        param_space=as_grid(settings),
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=at_once,
            reuse_actors=True,
            trial_name_creator=tune_run_id,
            trial_dirname_creator=tune_run_id,
        ),
        run_config=tune.RunConfig(
            storage_path=slots.scratch,
            callbacks=[relay],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()


def _settings(
    grid: Grid, pending: Sequence[Trial], store: Store, slots: Slots
) -> Iterator[dict[str, Any]]:
    """What travels to the workers; a run larger than what Ray may give has a machine alone."""
    given = slots.unmeasured and slots.unmeasured.model_dump(mode="json")
    shared = {"grid": grid.name, "unmeasured": given}
    largest = max(node["Resources"].get("memory", 0) for node in ray.nodes() if node["Alive"])
    for trial in pending:
        slot = slots.share | {"memory": reserved(trial.config, int(largest), slots.runtime.bank)}
        yield trial_settings(trial, slots.runtime, store.storage) | shared | {"slot": slot}


def _trainable(processes: int, settings: Sequence[dict[str, Any]]) -> tuple[Any, int | None]:
    """What Tune calls, and for how many trials at once; none: as many as their slots allow."""
    if processes == 1:
        return tune.with_resources(run_trial, own_slot), None
    from sweeps.together import OWN_SLOT, room, run_together  # torch: seconds

    waits = tune.PlacementGroupFactory([OWN_SLOT])
    at_once = room(processes, [given["slot"] for given in settings])
    return tune.with_resources(run_together, waits), at_once
