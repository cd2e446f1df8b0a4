"""Work and time: what runs cost, and how long the rest takes."""

from core.accounting import training_flops_per_token
from core.config import RunConfig
from core.record import RunRecord, Status

# Where nothing has run yet: a small model on one CPU core, between float32 (3e10) and bf16 (1e11).
DEFAULT_FLOPS_PER_SECOND = 5e10


def work(config: RunConfig) -> float:
    """Training FLOP of a run: what its time goes with."""
    return training_flops_per_token(config) * config.train.tokens


def measured_rate(records: list[RunRecord]) -> float | None:
    """FLOP per second of one trial, over finished runs; none where there are none."""
    done = [r for r in records if r.status == Status.DONE and r.wall_seconds > 0]
    seconds = sum(r.wall_seconds for r in done)
    return sum(r.train_flops for r in done) / seconds if seconds else None


def show_seconds(seconds: float) -> str:
    """A duration as 45 s, 12 min or 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
