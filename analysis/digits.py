"""How numbers are written: with the digits that mean something.

Libraries for logarithms, powers and matrices differ in the last place from CPU to CPU; seeds
differ in the second. What is written lies far from both, so that the same runs give the same bytes
everywhere.
"""

import math

import pandas as pd

DIGITS = 6
LARGEST_COUNT = 2.0**31  # beyond, that a double is whole tells nothing


def significant(value: float, digits: int = DIGITS) -> float:
    """`value` to so many significant digits; counts, and what is not finite, as they are."""
    count = value.is_integer() and abs(value) < LARGEST_COUNT
    return value if count or not math.isfinite(value) else float(f"{value:.{digits}g}")


def written(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is written: `significant` numbers in its columns of floats."""
    floats = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(significant) for name in floats})
