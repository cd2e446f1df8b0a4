"""What is written, and the sums behind it, to the bit."""

import numpy as np
import pandas as pd
import pytest

from analysis.digits import significant, written
from analysis.vectors import dot, dot3, two_dots


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.12345678, 0.123457),
        (-4.9142330126931055, -4.91423),
        (2659008.0, 2659008.0),  # a count
        (2659008.4, 2659010.0),
        (12345678901234.0, 12345700000000.0),
        (np.inf, np.inf),
        (5.30065123e-12, 5.30065e-12),
        (-2.220446049250313e-16, 0.0),
    ],
)
def test_six_digits_and_whole_counts(value: float, kept: float) -> None:
    assert significant(value) == kept


def test_only_floats_of_a_table_are_rounded() -> None:
    table = pd.DataFrame({"n": [12345678], "loss": [4.12345678], "arm": ["ffn"], "low": [np.nan]})
    pd.testing.assert_frame_equal(written(table), table.assign(loss=4.12346))


def test_sums_are_taken_in_order_without_fused_products() -> None:
    a_n, b_n, c_n, d_n = np.random.default_rng(0).normal(size=(4, 1001))
    assert dot(a_n, b_n) == in_order(a_n * b_n)
    assert dot3(a_n, b_n, c_n) == in_order(a_n * b_n * c_n)
    product_n = c_n * d_n
    assert two_dots(a_n, b_n, c_n, d_n) == (in_order(a_n * product_n), in_order(b_n * product_n))


def in_order(value_n: np.ndarray) -> float:
    total = 0.0
    for value in value_n:
        total += float(value)
    return total
