"""Which waiting trial a free worker takes, and which running one is stopped early."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from core.record import RunRecord
from sweeps.early_stopping import competitors
from sweeps.grid import Grid, Trial
from sweeps.progress import Point
from sweeps.store import Store
from sweeps.trial import settings_of

# The first rung lies at this share of the steps, each further one at REDUCTION times as many; one
# in REDUCTION goes on from a rung. benchmarks/early_stopping.csv has other values.
GRACE, REDUCTION = 0.25, 2


class InOrder(FIFOScheduler):  # type: ignore[misc]
    """The first waiting trial that no worker is starting for; a recovered one keeps its place.

    Tune's own order gives a free worker to the first waiting trial even while another worker starts
    for it, and drops that one. Where trials are shorter than the start of a worker, every start is
    dropped so, and a slot whose worker died stays empty to the end of the sweep.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """None where a worker is on its way to every waiting trial."""
        controller = tune_controller._tune_controller  # Ray offers no public way to ask
        waiting = [t for t in controller.get_trials() if t.status == TuneTrial.PENDING]
        free = (trial for trial in waiting if not _has_worker(controller, trial))
        return min(free, key=lambda trial: trial.trial_id, default=None)  # ids count up


def _has_worker(controller: Any, trial: TuneTrial) -> bool:
    """Whether a worker starts for the trial, or is handed over to it."""
    worker = controller._trial_to_actor.get(trial)
    return worker is not None and controller._actor_manager.is_actor_started(worker)


class Halving:
    """Asynchronous successive halving (ASHA, arXiv 1810.05934) among the runs of one group.

    At a rung a run is stopped if its training loss is above the quantile 1 / REDUCTION of those
    that came to the rung before it. The first to come always goes on: decisions depend on timing.
    """

    def __init__(self, steps: Mapping[str, int]) -> None:
        """`steps` of each run by its id."""
        self.steps = steps
        self.asha = ASHAScheduler(
            time_attr="share",
            metric="loss",
            mode="min",
            max_t=1,
            grace_period=GRACE,
            reduction_factor=REDUCTION,
            stop_last_trials=False,
        )
        for run_id in steps:
            self.asha.on_trial_add(None, SimpleNamespace(trial_id=run_id))

    def judge(self, run_id: str, curve: Iterable[Point]) -> Point | None:
        """The point of a run's curve so far at which it is stopped, none where it goes on.

        At a rung that it has passed a run is not judged again; at its last step it is done.
        """
        stops = [point for point in curve if self._stops(run_id, point)]
        return stops[0] if stops else None

    def _stops(self, run_id: str, point: Point) -> bool:
        share = point["step"] / self.steps[run_id]
        result = {"share": share, "loss": point["loss"]}
        trial = SimpleNamespace(trial_id=run_id)
        return share < 1 and self.asha.on_trial_result(None, trial, result) == TrialScheduler.STOP


class EarlyStopping(InOrder):
    """In order; and in arms that ask for it a run is stopped that falls behind its competitors.

    The curves of runs that ended before count from the start. A run that two arms share goes on.
    """

    def __init__(self, grid: Grid, store: Store, pending: Sequence[Trial]) -> None:
        super().__init__()
        self.grid, self.store = grid, store
        self.pending = {trial.run_id: trial for trial in pending}
        self.groups = _groups(grid)
        self.curves = _curves(store, self.groups)
        self.stopped: dict[str, RunRecord] = {}
        for run_id in self.groups.keys() - self.pending.keys():
            self._judge(run_id)

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """STOP where new points put a run behind its competitors; its record is written first."""
        run_id = tune_run_id(trial)
        points = result.get("points", ()) if run_id in self.groups else ()
        self.curves[run_id] |= {int(point["step"]): point for point in points}
        if not points or not (point := self._judge(run_id)):
            return str(TrialScheduler.CONTINUE)
        ours, curve = self.pending[run_id], list(self.curves[run_id].values())
        cause = _cause(point, ours.config.steps)
        self.stopped[run_id] = self.store.write_stop(self.grid, ours, cause, curve)
        return str(TrialScheduler.STOP)

    def _judge(self, run_id: str) -> Point | None:
        return self.groups[run_id].judge(run_id, self.curves[run_id].values())


def _cause(point: Point, steps: int) -> str:
    return (
        f"training loss {point['loss']:.4f} nats/token at the rung of step {point['step']:.0f} of "
        f"{steps}, behind its competitors"
    )


def _groups(grid: Grid) -> dict[str, Halving]:
    """The group of each run that may be stopped."""
    arms = Counter(trial.run_id for trial in grid.trials)
    own = (t for t in grid.trials if t.arm in grid.early_stopping and arms[t.run_id] == 1)
    groups: dict[str, Halving] = {}
    for group in competitors(own):
        steps = {trial.run_id: trial.config.steps for trial in group}
        groups |= dict.fromkeys(steps, Halving(steps))
    return groups


def _curves(store: Store, run_ids: Iterable[str]) -> dict[str, dict[int, Point]]:
    """What the results hold of each run's curve, by step."""
    curves: defaultdict[str, dict[int, Point]] = defaultdict(dict)
    for row in store.curves(run_ids).to_dict("records"):
        run_id, point = str(row.pop("run_id")), {str(name): float(x) for name, x in row.items()}
        curves[run_id][int(point["step"])] = point
    return curves


def tune_run_id(trial: TuneTrial) -> str:
    """The run id of a Tune trial."""
    return str(settings_of(trial.config)["run_id"])
