"""What rows of a table held at its checkpoints: old records, one file a checkpoint.

A row's record is kept before the row is first overwritten after a checkpoint. So going back costs
what has changed since, and so does keeping: never the size of the table. An entry that the death of
the process cut short belongs to a row that was not overwritten yet.
"""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]  # [u], one record a row
Ids = NDArray[np.int64]


class Journal:
    """Of a table of `n` rows whose records are of the numpy type `record`."""

    def __init__(self, folder: Path, n: int, record: np.dtype[Any]) -> None:
        self.folder = folder
        self.entry = np.dtype([("id", np.int64), ("record", record)])
        self.kept_n = np.zeros(n, bool)
        self.file: BinaryIO | None = None
        self.close: Callable[[], object] = lambda: None  # its file

    def start(self, step: int, oldest: int = 0) -> None:
        """The table's present state is the checkpoint of `step`; those before `oldest` go.

        Step 0 needs no file: to go back there is to empty the table.
        """
        self.close()
        self.kept_n[:] = False
        self.file = (self.folder / f"journal-{step:09d}").open("wb") if step else None
        if self.file:
            self.close = weakref.finalize(self, self.file.close)  # or when the table is dropped
        for path in self._files():
            if not oldest <= _step(path) <= step:
                path.unlink()

    def missing(self, ids: Ids) -> Ids:
        """Those of `ids` that are to be kept before they are overwritten."""
        return ids[~self.kept_n[ids]] if self.file else ids[:0]

    def keep(self, ids: Ids, records: Records) -> None:
        """Note what rows hold that are `missing`."""
        if self.file is None or not len(ids):
            return
        entries = np.empty(len(ids), self.entry)
        entries["id"], entries["record"] = ids, records
        self.file.write(entries.tobytes())
        self.file.flush()
        self.kept_n[ids] = True

    def since(self, step: int) -> Iterator[tuple[Ids, Records]]:
        """What to put back, in this order, to return to the checkpoint of `step`."""
        for path in reversed(self._files()):
            if _step(path) >= step:
                whole = path.stat().st_size // self.entry.itemsize
                entries = np.fromfile(path, self.entry, whole)
                yield entries["id"], entries["record"].copy()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("journal-*"))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("journal-"))
