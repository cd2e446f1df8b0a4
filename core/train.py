"""One run: train, checkpoint, resume to the bit, evaluate, record."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from core.accounting import generic_path
from core.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights
from core.config import RunConfig, Runtime, save_config
from core.dataset import Dataset
from core.device import check_bank_fits
from core.errors import InputError
from core.evaluate import evaluate
from core.identity import run_id
from core.memory.bank import Fetch
from core.memory.optimizer import RowAdamW
from core.model import Model, is_weight, predicted, resolve_precision
from core.optimizer import dense_optimizer, load_optimizer_state, optimizer_state
from core.outcome import Outcome, make_record
from core.prepare import prepare
from core.record import RunRecord, Status, read_record, write_record
from core.schedule import rate

WEIGHTS = "model.safetensors"
LOCK = "lock"  # held by the process that trains in a run's folder
LOGS = 100  # points of the loss curve
MIX_STREAM = 1  # keeps the generic mix's draws apart from the order of the rows
Log = Callable[[dict[str, float]], None]


class Diverged(Exception):
    """The loss is not finite, or far above its start."""


def train_run(
    config: RunConfig, runtime: Runtime, folder: Path, on_log: Log, patience: float = 0.0
) -> RunRecord:
    """Train `config` in `folder`, from its last checkpoint if there is one, and return its record.

    Writes config.yaml, checkpoints, curve.csv, model.safetensors and, last, record.json. A diverged
    run returns a record that says so; anything else that goes wrong raises. Raises InputError for a
    bank that the device cannot hold, and where another process trains here and goes on for more
    than `patience` seconds (-1: wait for ever).
    """
    if record := _finished(folder):
        return record
    check_bank_fits(config, runtime.device)
    dataset = prepare(config.data, config.tree, runtime.cache, runtime.device)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process(folder, patience):
        return _finished(folder) or _train(config, runtime, folder, dataset, on_log)


def _finished(folder: Path) -> RunRecord | None:
    return read_record(folder) if (folder / "record.json").exists() else None


@contextmanager
def _only_process(folder: Path, patience: float) -> Iterator[None]:
    """The system lets go of the lock when a process is killed."""
    try:
        with FileLock(folder / LOCK, timeout=patience):
            yield
    except Timeout:
        raise InputError(
            f"another process trains in {folder}; wait for it, or stop it and try again"
        ) from None


def _train(
    config: RunConfig, runtime: Runtime, folder: Path, dataset: Dataset, on_log: Log
) -> RunRecord:
    start = train_start(config, runtime, folder.parent)
    record = Trainer(config, runtime, folder, dataset, on_log, start).run()
    write_record(record, folder)
    return record


def train_start(config: RunConfig, runtime: Runtime, runs: Path) -> Path | None:
    """The weights of the anchor that `config` starts from, trained under `runs` if need be.

    Runs that share a start wait for the one that trains it. Raises InputError where it diverged.
    """
    if config.start is None:
        return None
    folder = runs / run_id(config.start)
    record = train_run(config.start, runtime, folder, lambda _: None, patience=-1)
    if record.status != Status.DONE:
        raise InputError(f"train.start diverged ({record.cause}); lower train.start.lr")
    return folder / WEIGHTS


class Trainer:
    """The state of one run: weights, moments, the curve so far and the time spent.

    `start` holds the weights of the anchor that the run starts from.
    """

    def __init__(
        self,
        config: RunConfig,
        runtime: Runtime,
        folder: Path,
        dataset: Dataset,
        on_log: Log,
        start: Path | None = None,
    ) -> None:
        torch.set_num_threads(runtime.threads)
        self.config, self.runtime, self.folder = config, runtime, folder
        self.dataset, self.on_log = dataset, on_log
        self.precision = resolve_precision(config.train.precision, runtime.device)
        self.model = Model(config, runtime.device, self.precision)
        if start:
            self.model.load_anchor(load_weights(start))
        self.first_step = config.start.steps if config.start else 0  # of the text, in one order
        self.optimizer = dense_optimizer(self.model, config)
        train = config.train
        self.row_optimizer = RowAdamW(
            train.beta1, train.beta2, config.memory.weight_decay, train.clip
        )
        self.step = 0
        # Sums since the last log, and what has been; all of it is checkpointed.
        self.progress: dict[str, Any] = {
            "curve": [],
            "tokens": 0,
            "loss_sum": 0.0,
            "loss_steps": 0,
            "start_loss": None,
            "cpu_seconds": 0.0,
            "wall_seconds": 0.0,
            "attempts": 0,
        }

    def run(self) -> RunRecord:
        """Train to the end, evaluate, and say what came out."""
        save_config(self.config, self.folder)
        self._resume()
        self.progress["attempts"] += 1
        status, cause, losses = Status.DONE, "", {}
        evaluate_seconds = 0.0
        try:
            self._train()
        except Diverged as error:
            status, cause = Status.DIVERGED, str(error)
        else:
            started = time.process_time()
            losses = evaluate(self.model, self.dataset, self.config)
            evaluate_seconds = time.process_time() - started
        self._write_curve()
        self._save_weights()
        outcome = Outcome(status, cause, losses, evaluate_seconds, self.precision)
        return make_record(self.config, self.runtime, self.dataset, self.progress, outcome)

    def _train(self) -> None:
        steps = self.config.steps
        log_every = max(1, steps // LOGS)
        clock = _Clock(self.progress)
        saved = time.monotonic()
        while self.step < steps:
            self._train_step(steps)
            logs = self.step % log_every == 0 or self.step == steps
            if logs and self.progress["loss_steps"]:  # a part of the tree may have had no row
                clock.update()
                self._log(steps)
            if time.monotonic() - saved >= self.runtime.checkpoint_seconds:
                clock.update()
                self._save()
                saved = time.monotonic()
        clock.update()

    def _train_step(self, steps: int) -> None:
        rows_bt, segments_bt, path_bl = self._batch()
        targets = int(predicted(segments_bt).sum())
        if self.config.train.tree_part:
            own_b = self._own(path_bl)  # the other runs' rows still count in the normaliser
            rows_bt, segments_bt, path_bl = rows_bt[own_b], segments_bt[own_b], path_bl[own_b]
        fetches = self.model.fetch(path_bl)
        total = self._backward(rows_bt, segments_bt, fetches, targets)
        self._update(fetches, rate(self.step, steps, self.config.train))
        self.step += 1
        own = int(predicted(segments_bt).sum()) if self.config.train.tree_part else targets
        if own:
            self._account(total * (targets / own), own)

    def _own(self, path_bl: Tensor) -> Tensor:
        """Rows whose subtree this run trains."""
        part = torch.tensor(self.config.train.tree_part, device=path_bl.device)
        return torch.isin(path_bl[:, 0], part)

    def _backward(
        self, rows_bt: Tensor, segments_bt: Tensor, fetches: Sequence[Fetch], targets: int
    ) -> float:
        """Gradients of the mean loss over `targets`, by micro-batches; gives that mean."""
        size = self.config.train.batch_size // self.config.train.accumulate
        total = 0.0
        for start in range(0, len(rows_bt), size):
            part = slice(start, start + size)
            loss = self.model.summed_loss(rows_bt[part], segments_bt[part], fetches, part) / targets
            loss.backward()
            total += loss.item()
        return total

    def _update(self, fetches: Sequence[Fetch], share: float) -> None:
        """One step of both optimisers at `share` of their peak rates."""
        dense = [parameter for _, parameter in self.model.dense_parameters()]
        torch.nn.utils.clip_grad_norm_(dense, self.config.train.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.row_optimizer.step(self.model.rows(fetches), self._row_lr(share))

    def _row_lr(self, share: float) -> float:
        memory = self.model.token_memory
        if memory and memory.row_lr:
            return memory.row_lr
        return (self.config.memory.lr or self.config.train.lr) * share

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.dataset.train
        chosen = batch_rows(
            len(rows.tokens_nt),
            self.config.train.batch_size,
            self.first_step + self.step,
            self.config.seed,
        )
        to = self.runtime.device
        return (
            torch.from_numpy(rows.tokens_nt[chosen].astype(np.int64)).to(to),
            torch.from_numpy(rows.segments_nt[chosen]).to(to),
            torch.from_numpy(self._paths(chosen)).to(to),
        )

    def _paths(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        path_bl = self.dataset.train.path_nl[chosen].astype(np.int64)
        mix = self.config.memory.generic_mix
        if mix:
            draws = np.random.default_rng([self.config.seed, self.step, MIX_STREAM])
            path_bl[draws.random(len(chosen)) < mix] = generic_path(self.config)
        return path_bl

    def _account(self, loss: float, targets: int) -> None:
        progress = self.progress
        if progress["start_loss"] is None:
            progress["start_loss"] = loss
        limit = self.config.train.diverged_above * progress["start_loss"]
        if not math.isfinite(loss) or loss > limit:
            raise Diverged(f"loss {loss:.4g} at step {self.step}, limit {limit:.4g} nats/token")
        progress["tokens"] += targets
        progress["loss_sum"] += loss
        progress["loss_steps"] += 1

    def _log(self, steps: int) -> None:
        progress = self.progress
        point = {
            "step": self.step,
            "tokens": progress["tokens"],
            "loss": progress["loss_sum"] / progress["loss_steps"],
            "lr": self.config.train.lr * rate(self.step - 1, steps, self.config.train),
        }
        progress["curve"].append(point)
        progress["loss_sum"], progress["loss_steps"] = 0.0, 0
        speed = progress["tokens"] / max(progress["cpu_seconds"], 1e-9)
        self.on_log(point | {"tokens_per_second": speed})

    def _save(self) -> None:
        tensors = self.model.state() | optimizer_state(self.model, self.optimizer)
        save_checkpoint(self.folder / "checkpoints", self.step, tensors, self.progress)

    def _resume(self) -> None:
        found = load_checkpoint(self.folder / "checkpoints")
        if found is None:
            return
        self.step, tensors, self.progress, damaged = found
        for name in damaged:
            print(f"{self.folder}: checkpoint {name} is damaged; going on from step {self.step}")
        self.model.load_state(tensors)
        load_optimizer_state(self.model, self.optimizer, tensors)

    def _write_curve(self) -> None:
        partial = self.folder / "curve.csv.partial"
        pd.DataFrame(self.progress["curve"]).to_csv(partial, index=False)
        partial.replace(self.folder / "curve.csv")

    def _save_weights(self) -> None:
        weights = {name: x for name, x in self.model.state().items() if is_weight(name)}
        config = {"config": json.dumps(self.config.model_dump(mode="json"))}
        save_weights(self.folder / WEIGHTS, weights, config)


class _Clock:
    """Adds CPU and wall seconds to the progress, so that they survive a restart."""

    def __init__(self, progress: dict[str, Any]) -> None:
        self.progress = progress
        self.cpu, self.wall = time.process_time(), time.monotonic()

    def update(self) -> None:
        cpu, wall = time.process_time(), time.monotonic()
        self.progress["cpu_seconds"] += cpu - self.cpu
        self.progress["wall_seconds"] += wall - self.wall
        self.cpu, self.wall = cpu, wall


def batch_rows(n: int, size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Rows of one step; an epoch is a permutation by (seed, epoch) less its incomplete batch.

    Raises InputError where the text does not fill one batch.
    """
    batches = n // size
    if not batches:
        raise InputError(
            f"the train split packs into {n} rows, train.batch_size is {size}; "
            "give more text or a smaller batch"
        )
    epoch, batch = divmod(step, batches)
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return order[batch * size : (batch + 1) * size]
