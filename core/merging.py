"""Runs that trained parts of the tree, merged to one run that can be asked like any other."""

import time
from collections.abc import Sequence
from pathlib import Path

from core.checkpoint import saved_config
from core.config import Runtime, save_config
from core.errors import InputError
from core.evaluate import evaluate
from core.load import load_run
from core.memory.merge import merge_banks
from core.model import BANK_FOLDER
from core.outcome import Outcome, make_record
from core.paths import kept_paths, taken_paths
from core.prepare import prepare
from core.record import RECORD, RunRecord, Status, read_record, write_record
from core.trainer import WEIGHTS


def merge_runs(parts: Sequence[Path], target: Path, runtime: Runtime) -> RunRecord:
    """Write the run folder `target` from those of runs that share out the clusters of level 1.

    The merged run is evaluated anew; its record counts the tokens and seconds of all parts. Raises
    InputError as `merge_banks` does, for a part that is not finished and where `target` exists.
    """
    if target.exists():
        raise InputError(f"{target} exists; name a folder that does not, or remove it")
    if on_disk := [part for part in parts if (part / BANK_FOLDER).exists()]:
        raise InputError(f"{on_disk[0]}: its bank lies on disk; train parts with it in memory")
    records = [read_record(part / RECORD) for part in parts]
    merge_banks([part / WEIGHTS for part in parts], target / WEIGHTS)
    config = saved_config(target / WEIGHTS)
    save_config(config, target)
    kept_paths(target, lambda: taken_paths(parts[0]))
    dataset = prepare(config.data, config.tree, runtime.cache, runtime.device)
    started = time.process_time()
    losses = evaluate(load_run(target, runtime.device), dataset, config)
    seconds = time.process_time() - started
    outcome = Outcome(Status.DONE, "", losses, seconds, records[0].precision)
    progress = {
        "curve": [],
        "tokens": sum(record.tokens for record in records),
        "cpu_seconds": sum(record.train_seconds for record in records),
        "wall_seconds": sum(record.wall_seconds for record in records),
        "attempts": sum(record.attempts for record in records),
    }
    record = make_record(config, runtime, dataset, progress, outcome)
    write_record(record, target / RECORD)
    return record
