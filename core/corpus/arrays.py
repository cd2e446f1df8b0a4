"""One-dimensional .npy files that grow by appending, so that no array has to fit in memory."""

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


class ArrayWriter:
    """Appends to a .npy file; its header is completed on leaving the `with` block."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path = path
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: ArrayLike) -> None:
        array = np.ascontiguousarray(values, self._dtype)
        array.tofile(self._file)
        self._length += len(array)

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        # NumPy pads the header so that its length does not change when the first dimension grows.
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": self._dtype.str, "fortran_order": False, "shape": (self._length,)},
        )
        self._file.flush()  # tofile writes past Python's buffer


def open_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped and read-only; an empty one cannot be mapped."""
    return np.load(path, mmap_mode="r", allow_pickle=False)
