"""Numbers and tables as plain text: ten thousand rows in a moment."""

from collections.abc import Sequence

# (below, unit, suffix)
SUFFIXES = ((1e4, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "G"))


def show_number(value: float) -> str:
    """Three digits and a suffix: 186k, 2.1M, 3.4e15."""
    for limit, unit, suffix in SUFFIXES:
        if abs(value) < limit:
            shown = value / unit
            whole = abs(shown) >= 100 or shown == int(shown)
            return f"{shown:,.0f}{suffix}" if whole else f"{shown:.3g}{suffix}"
    return f"{value:.2e}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in (header, *rows))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])
