"""Learning-rate schedules, as a share of the peak."""

import math

from core.config import TrainConfig


def rate(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rate at `step` of `steps`, counted from 0.

    Both warm up linearly. `wsd` (warm-up, stable, decay; arXiv 2404.06395) holds the peak and falls
    linearly to `final_lr`; `cosine` falls from the peak to `final_lr` over the rest. A checkpoint
    inside a cosine run is no point of a data law: its rate never came down.
    """
    warmup = max(1, round(config.warmup * steps))
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        progress = (step - warmup) / max(1, steps - warmup)
        return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    decay = max(1, round(config.decay * steps))
    progress = max(0.0, (step - (steps - decay)) / decay)
    return 1 - (1 - config.final_lr) * progress
