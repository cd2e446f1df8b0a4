"""How numbers are written: with the digits that mean something.

Libraries for logarithms, powers and matrices differ in the last place from CPU to CPU; seeds
differ in the second. What is written lies far from both, so that the same runs give the same bytes
everywhere.
"""

import math

import pandas as pd

DIGITS = 6
SMALLEST = 1e-14  # less is what rounding leaves of numbers near 1 that cancel
LARGEST_COUNT = 2.0**31  # beyond, that a double is whole tells nothing


def significant(value: float, digits: int = DIGITS) -> float:
    """`value` to so many significant digits; counts, and what is not finite, as they are; 0 for
    what is less than SMALLEST.
    """
    if abs(value) < SMALLEST:
        return 0.0
    count = value.is_integer() and abs(value) < LARGEST_COUNT
    return value if count or not math.isfinite(value) else float(f"{value:.{digits}g}")


def written(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is written: `significant` numbers in its columns of floats."""
    floats = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(significant) for name in floats})
