"""A table in a file that may be larger than memory.

A row's step count, weights and moments lie side by side, so a step reads each fetched row once and
writes it once. The file is sparse: a row comes into being, in value and on disk, when it is first
trained; until then its record is zeros and its values are drawn at each reading.

One thread does all reading and writing, in order, while the model computes. Checkpoints cost what
was trained since the last one (core/memory/journal.py). They survive the death of the process;
after a power cut the file holds what the system had written.
"""

import errno
import os
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.memory.journal import Ids, Journal, Records
from core.memory.row_format import Change, RowFormat, Rows
from core.memory.table import Draw, Table, Update, initial


class DiskTable(Table):
    """`n` rows in `folder`."""

    def __init__(
        self, folder: Path, n: int, shape: tuple[int, ...], draw: Draw, row_format: RowFormat
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape, self.draw, self.format = shape, draw, row_format
        parts = row_format.parts.items()
        values = [(name, np.uint8, (prod(shape) * dtype.itemsize,)) for name, dtype in parts]
        self.record = np.dtype([("steps", np.int64), *values])
        self.file = os.open(folder / "rows", os.O_RDWR | os.O_CREAT, 0o644)
        weakref.finalize(self, os.close, self.file)  # a worker trains one run after the other
        self.file_size = n * self.record.itemsize
        os.ftruncate(self.file, self.file_size)
        self.journal = Journal(folder, n, self.record)
        self.worker = ThreadPoolExecutor(1)
        self.ahead: tuple[Ids, Future[Records]] | None = None
        self.written: tuple[Ids, Records] | None = None
        self.writing: Future[None] | None = None

    def read(self, ids_u: Tensor) -> tuple[Tensor, Update]:
        kept = self.kept(ids_u)
        return kept.weights.detach(), partial(self._update, ids_u, kept)

    def kept(self, ids_u: Tensor) -> Rows:
        """Copies of rows as the format keeps them."""
        ids = ids_u.numpy()
        records = self._read_ahead_of(ids)
        if records is None:
            self._finish_writing()
            records = self.worker.submit(self._load, ids).result()
        parts = {**self.format.parts, "steps": torch.int64}
        return Rows(
            **{name: torch.from_numpy(records[name].copy()).view(x) for name, x in parts.items()}
        )

    def read_ahead(self, ids_b: Tensor) -> None:
        ids = ids_b.unique().cpu().numpy()
        self.ahead = ids, self.worker.submit(self._load, ids)

    def write(self, ids_u: Tensor, rows: Rows) -> None:
        """Begin to write. Raises what went wrong in the writing before."""
        self._finish_writing()
        ids, records = ids_u.numpy(), np.empty(len(ids_u), self.record)
        records["steps"] = rows.steps.numpy()
        for name in self.format.parts:
            records[name] = getattr(rows, name).view(torch.uint8).numpy()
        self.written = ids, records
        self.writing = self.worker.submit(self._store, ids, records)

    def checkpoint(self, step: int, oldest: int) -> None:
        self._finish_writing()
        self.journal.start(step, oldest)

    def roll_back(self, step: int) -> None:
        if step == 0:
            os.ftruncate(self.file, 0)
            os.ftruncate(self.file, self.file_size)
        else:
            for ids, records in self.journal.since(step):
                self._put(ids, records)
        self.journal.start(step)

    def _update(self, ids_u: Tensor, kept: Rows, change: Change) -> None:
        self.write(ids_u, self.format.changed(ids_u, kept, change))

    def _finish_writing(self) -> None:
        if self.writing:
            self.writing.result()

    def _read_ahead_of(self, ids: Ids) -> Records | None:
        """What was read ahead, with rows that changed since; None where it was another batch."""
        ahead, self.ahead = self.ahead, None
        if ahead is None or not np.array_equal(ahead[0], ids):
            return None
        records = ahead[1].result()
        if self.written:
            changed, new = self.written
            _, here, there = np.intersect1d(ids, changed, assume_unique=True, return_indices=True)
            records[here] = new[there]
        return records

    def _load(self, ids: Ids) -> Records:
        records = self._raw(ids)
        for i in np.flatnonzero(records["steps"] == 0).tolist():
            weights = initial(self.draw, int(ids[i]), self.shape).to(self.format.weights)
            records["weights"][i] = weights.view(torch.uint8).numpy()
        return records

    def _store(self, ids: Ids, records: Records) -> None:
        missing = self.journal.missing(ids)
        self.journal.keep(missing, self._raw(missing))
        self._put(ids, records)

    def _raw(self, ids: Ids) -> Records:
        records = np.empty(len(ids), self.record)
        for row, place in zip(_bytes(records), self._places(ids), strict=True):
            os.preadv(self.file, [row], place)
        return records

    def _put(self, ids: Ids, records: Records) -> None:
        for row, place in zip(_bytes(records), self._places(ids), strict=True):
            if os.pwritev(self.file, [row], place) != len(row):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _places(self, ids: Ids) -> list[int]:
        return [self.record.itemsize * row for row in ids.tolist()]


def _bytes(records: Records) -> list[memoryview]:
    """Each record as its bytes, without copies."""
    return [row.data for row in records.view(np.uint8).reshape(-1, records.itemsize)]
