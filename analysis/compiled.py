"""Compiling: once a version of the sources, whoever imports them.

numba keeps compiled code on disk, but looks only at the file of the function itself: a change in
kernels.py would leave newton.py with the old kernels. So what is kept lies in a folder named after
all of them.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from numba import config, njit

F = TypeVar("F", bound=Callable[..., object])
SOURCES = ("elementary.py", "vectors.py", "kernels.py", "newton.py")


def _keep_apart() -> None:
    """Where the package can be written to, and nobody has chosen a folder; else as numba would."""
    here = Path(__file__).parent
    if config.CACHE_DIR or not os.access(here, os.W_OK):
        return
    text = b"".join((here / name).read_bytes() for name in SOURCES)
    config.CACHE_DIR = str(here / "__pycache__" / f"numba-{hashlib.sha256(text).hexdigest()[:12]}")


_keep_apart()


def compiled(function: F) -> F:
    """Compiled on first use, and kept on disk for later processes.

    Without fast-math: sums stay in the order in which they are written and nothing is fused, so
    that a fit takes the same steps, to the bit, on every CPU. It costs a tenth of the time.
    """
    return cast(F, njit(cache=True, error_model="numpy")(function))
