"""How figures look and how they are written: readable in black and white, the same bytes every
time.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib

from analysis.digits import written
from core.writing import whole_file

matplotlib.use("Agg")

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "savefig.dpi": 160,
    "svg.hashsalt": "memscale",  # ids inside an SVG depend on nothing but this
    "svg.fonttype": "path",
}
# Grey levels far apart, and a marker and a line style each: nothing rests on colour alone.
COLOURS = ("#111111", "#c0392b", "#2c6fb3", "#7f8c8d", "#d99a00", "#4b8b3b", "#8e5ea2", "#00838f")
NO_METADATA: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)))


@dataclass(frozen=True)
class Plot:
    """A figure, the data that it shows, and what it says."""

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame

    @cached_property
    def png(self) -> bytes:
        """The figure as pixels, without a date."""
        buffer = io.BytesIO()
        with matplotlib.rc_context(RC):
            self.figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG element, without XML header or date."""
        buffer = io.StringIO()
        with matplotlib.rc_context(RC):
            self.figure.savefig(buffer, format="svg", metadata=NO_METADATA)
        text = buffer.getvalue()
        return text[text.index("<svg") :]


def look(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the index-th series; no two of the first 64 are alike."""
    i, other = index % len(COLOURS), (index + index // len(COLOURS)) % len(COLOURS)
    return {"color": COLOURS[i], "marker": MARKERS[other], "linestyle": LINES[other]}


@contextmanager
def canvas(
    panels: int = 1, width: float = 4.6, height: float = 3.3, columns: int = 4
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure and its axes, row by row, at most `columns` in a row; drawn in this style."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for unused in axes[panels:]:
            unused.set_visible(False)
        yield figure, list(axes[:panels])
        figure.draw_without_rendering()  # lays the panels out, once for every format
        figure.set_layout_engine("none")
        for axis in figure.axes:  # its last places are those of the CPU, and name clip paths
            axis.set_position(Bbox(axis.get_position().get_points().round(6)))


def save(plot: Plot, folder: Path, command: str) -> list[Path]:
    """NAME.png, NAME.svg and NAME.csv (the command in its first line)."""
    table = f"# {command}\n" + written(plot.data).to_csv(index=False)
    contents = {".png": plot.png, ".svg": plot.svg.encode(), ".csv": table.encode()}
    return [
        _write(folder / f"{plot.name}{suffix}", content) for suffix, content in contents.items()
    ]


def _write(path: Path, content: bytes) -> Path:
    with whole_file(path) as partial:
        partial.write_bytes(content)
    return path


def count(value: float) -> str:
    """12_345_678 as 12.3M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
