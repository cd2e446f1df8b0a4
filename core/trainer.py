"""Training: steps, checkpoints, exact resume, and at the end evaluation and weights."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from core import parallel
from core.batches import Batches
from core.checkpoint import (
    load_checkpoint,
    load_weights,
    oldest_kept,
    save_checkpoint,
    save_weights,
)
from core.config import RunConfig, Runtime, save_config
from core.dataset import Dataset
from core.evaluate import evaluate
from core.gradients import add_gradients
from core.memory.bank import BankPlace, Fetch
from core.memory.optimizer import RowAdamW
from core.model import BANK_FOLDER, Model, is_weight
from core.optimizer import dense_optimizer, load_optimizer_state, optimizer_state
from core.outcome import Outcome, make_record
from core.record import CURVE, RunRecord, Status, write_csv
from core.schedule import rate
from core.storage import CHECKPOINTS, NOWHERE_ELSE, Storage

WEIGHTS = "model.safetensors"
LOGS = 100  # points of the loss curve
Log = Callable[[dict[str, float]], None]


class Diverged(Exception):
    """The loss is not finite, or far above its start."""


class Trainer:
    """The state of one run: weights, moments, the curve so far and the time spent.

    `start` holds the weights of the anchor that the run starts from; checkpoints
    go to `storage` too.
    """

    def __init__(
        self,
        config: RunConfig,
        runtime: Runtime,
        folder: Path,
        dataset: Dataset,
        on_log: Log,
        start: Path | None = None,
        storage: Storage = NOWHERE_ELSE,
    ) -> None:
        torch.set_num_threads(runtime.threads)
        self.config, self.runtime, self.folder = config, runtime, folder
        self.dataset, self.on_log, self.storage = dataset, on_log, storage
        place = _bank_place(runtime, folder)
        self.model = Model.on_paths(config, runtime.device, runtime.paths, place)
        if start:
            self.model.load_anchor(load_weights(start))
        self.batches = Batches(config, dataset.train, runtime.device)
        self.optimizer = dense_optimizer(self.model, config)
        train = config.train
        self.row_optimizer = RowAdamW(
            train.beta1, train.beta2, config.memory.weight_decay, train.clip
        )
        self.step = 0
        self.batch = self.batches.at(self.step)  # the next to train on
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
        if parallel.first():
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
            evaluate_seconds = parallel.total(time.process_time() - started)
        weights = {name: x for name, x in self.model.state().items() if is_weight(name)}
        if parallel.first():
            self._write(weights)
        self._checkpoint_bank()  # until its record stands, the run may have to go back
        outcome = Outcome(status, cause, losses, evaluate_seconds, self.model.precision)
        return make_record(self.config, self.runtime, self.dataset, self.progress, outcome)

    def _train(self) -> None:
        steps = self.config.steps
        log_every = max(1, steps // LOGS)
        clock = _Clock(self.progress)
        saved = time.monotonic()
        while self.step < steps:
            self.train_step(steps)
            logs = self.step % log_every == 0 or self.step == steps
            if logs and self.progress["loss_steps"]:
                clock.update()
                self._log(steps)
            due = time.monotonic() - saved >= self.runtime.checkpoint_seconds
            if parallel.from_first(due):
                clock.update()
                self._save()
                saved = time.monotonic()
        clock.update()

    def train_step(self, steps: int) -> None:
        batch = self.batch
        fetches = self.model.fetch(batch.path_bl)
        self.batch = self.batches.at(self.step + 1)
        self.model.read_ahead(self.batch.path_bl)
        total = add_gradients(self.model, batch, fetches)
        self._update(fetches, rate(self.step, steps, self.config.train))
        self.step += 1
        if batch.own:  # a part of the tree may have no row in a batch
            self._account(total * (batch.targets / batch.own), batch.own)

    def _update(self, fetches: Sequence[Fetch], share: float) -> None:
        """One step of both optimisers at `share` of their peak rates."""
        dense = [parameter for _, parameter in self.model.dense_parameters()]
        torch.nn.utils.clip_grad_norm_(dense, self.config.train.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.row_optimizer.step(self.model.row_gradients(fetches), self._row_lr(share))

    def _row_lr(self, share: float) -> float:
        memory = self.model.token_memory
        if memory and memory.row_lr:
            return memory.row_lr
        return (self.config.memory.lr or self.config.train.lr) * share

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
        self._checkpoint_bank()  # first: a checkpoint must find its bank
        tensors = self.model.state() | optimizer_state(self.model, self.optimizer)
        if parallel.first():
            save_checkpoint(self.folder / CHECKPOINTS, self.step, tensors, self.progress)
            self._write_curve()
            self.storage.push(self.folder)

    def _checkpoint_bank(self) -> None:
        if self.model.bank:
            self.model.bank.checkpoint(self.step, oldest_kept(self.folder / CHECKPOINTS))

    def _resume(self) -> None:
        found = load_checkpoint(self.folder / CHECKPOINTS)
        if found:
            self.step, tensors, self.progress, damaged = found
            for name in damaged if parallel.first() else ():
                print(f"{self.folder}: checkpoint {name} is damaged; from step {self.step} on")
            self.batch = self.batches.at(self.step)
            self.model.load_state(tensors)
            load_optimizer_state(self.model, self.optimizer, tensors)
        if self.model.bank:
            self.model.bank.roll_back(self.step)

    def _write_curve(self) -> None:
        points = pd.DataFrame(self.progress["curve"], columns=list(CURVE))
        write_csv(points, self.folder / "curve.csv")

    def _write(self, weights: dict[str, Tensor]) -> None:
        """The curve, and the weights with the config in their header."""
        self._write_curve()
        config = {"config": json.dumps(self.config.model_dump(mode="json"))}
        save_weights(self.folder / WEIGHTS, weights, config)


class _Clock:
    """Adds CPU and wall seconds to the progress, so that they survive a restart."""

    def __init__(self, progress: dict[str, Any]) -> None:
        self.progress = progress
        self.cpu, self.wall = time.process_time(), time.monotonic()

    def update(self) -> None:
        cpu, wall = time.process_time(), time.monotonic()
        self.progress["cpu_seconds"] += parallel.total(cpu - self.cpu)
        self.progress["wall_seconds"] += wall - self.wall
        self.cpu, self.wall = cpu, wall


def _bank_place(runtime: Runtime, folder: Path) -> BankPlace:
    """Where the bank of a run lies: beside the anchor, in host memory, or in the run's folder."""
    if runtime.bank == "disk":
        return BankPlace(folder=folder / BANK_FOLDER)
    if runtime.bank == "host":
        return BankPlace(pinned=runtime.device != "cpu")
    return BankPlace(device=runtime.device)
