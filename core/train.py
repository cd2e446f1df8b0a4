"""One run, once: train it or go on, and keep its record."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core import parallel
from core.config import RunConfig, Runtime, load_config
from core.dataset import Dataset
from core.device import check_bank_fits, check_processes
from core.errors import InputError
from core.identity import run_id
from core.load import check_same
from core.model import resolved_paths
from core.paths import kept_paths
from core.prepare import prepare
from core.record import RECORD, RunRecord, Status, read_record, write_record
from core.storage import CHECKPOINTS, NOWHERE_ELSE, Storage
from core.trainer import WEIGHTS, Log, Trainer

LOCK = "lock"  # held by the process that trains in a run's folder


def train_run(
    config: RunConfig,
    runtime: Runtime,
    folder: Path,
    on_log: Log,
    patience: float = 0.0,
    storage: Storage = NOWHERE_ELSE,
) -> RunRecord:
    """Train `config` in `folder`, from its last checkpoint if there is one, and return its record.

    The checkpoint may be one that another machine left in `storage`. Writes config.yaml,
    paths.yaml, checkpoints, curve.csv, model.safetensors and, last, record.json; the checkpoints
    then go. A diverged run returns a record that says so; anything else that goes wrong raises.
    Raises InputError for a folder of another configuration, for a bank that the device cannot hold,
    for batches that the processes cannot share, and where another process trains here for more than
    `patience` seconds (-1: wait for ever).
    """
    if (folder / "config.yaml").exists():
        check_same(load_config(folder / "config.yaml"), config, folder, "the one to train is")
    if record := parallel.from_first(_finished(folder)):
        return record
    check_bank_fits(config, runtime)
    check_processes(config, runtime.processes)
    dataset = prepare(config.data, config.tree, runtime.cache, runtime.device)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process(folder, patience):
        if parallel.first():
            storage.pull(folder)
        finished = parallel.from_first(_finished(folder))
        return finished or _train(config, runtime, folder, dataset, on_log, storage)


def _finished(folder: Path) -> RunRecord | None:
    path = folder / RECORD
    return read_record(path) if path.exists() else None


@contextmanager
def _only_process(folder: Path, patience: float) -> Iterator[None]:
    """The system lets go of the lock when a process is killed; the first of a run holds it for all
    of them."""
    if not parallel.first():
        yield
        return
    try:
        with FileLock(folder / LOCK, timeout=patience):
            yield
    except Timeout:
        raise InputError(
            f"another process trains in {folder}; wait for it, or stop it and try again"
        ) from None


def _train(
    config: RunConfig,
    runtime: Runtime,
    folder: Path,
    dataset: Dataset,
    on_log: Log,
    storage: Storage,
) -> RunRecord:
    start = train_start(config, runtime, folder.parent, storage)
    runtime = _on_its_paths(config, runtime, folder)
    record = Trainer(config, runtime, folder, dataset, on_log, start, storage).run()
    if parallel.first():
        storage.finish(folder, record)
        write_record(record, folder / RECORD)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # six times the weights
    return parallel.from_first(record)  # from here on every process finds what the first wrote


def _on_its_paths(config: RunConfig, runtime: Runtime, folder: Path) -> Runtime:
    """`runtime` with the paths that the run of the folder began on, or now begins on."""
    paths = resolved_paths(config, runtime.device, runtime.paths)
    kept = kept_paths(folder, lambda: paths) if parallel.first() else paths
    return runtime.model_copy(update={"paths": parallel.from_first(kept)})


def train_start(config: RunConfig, runtime: Runtime, runs: Path, storage: Storage) -> Path | None:
    """The weights of the anchor that `config` starts from, trained under `runs` if need be.

    Runs that share a start wait for the one that trains it. Raises InputError where it diverged.
    """
    if config.start is None:
        return None
    folder = runs / run_id(config.start)
    record = train_run(config.start, runtime, folder, lambda _: None, -1, storage)
    if record.status != Status.DONE:
        raise InputError(f"train.start diverged ({record.cause}); lower train.start.lr")
    return folder / WEIGHTS
