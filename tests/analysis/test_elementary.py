"""exp and log against numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import elementary

ULP = 2.3e-16


@given(st.floats(-700, 700))
def test_exp(x: float) -> None:
    assert elementary.exp(x) == pytest.approx(np.exp(x), rel=2 * ULP)


@given(st.floats(1e-300, 1e300))
def test_log(x: float) -> None:
    assert elementary.log(x) == pytest.approx(np.log(x), rel=2 * ULP, abs=1e-16)


def test_what_is_not_there_weighs_nothing() -> None:
    assert elementary.exp(-np.inf) < 1e-300
