"""Schedules at their corners, worked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import TrainConfig
from core.schedule import rate


def test_wsd_by_hand() -> None:
    config = TrainConfig(warmup=0.1, decay=0.2, final_lr=0.5)
    values = [rate(step, 100, config) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9:81] == [1.0] * 72
    assert values[90] == pytest.approx(0.75)
    assert values[99] == pytest.approx(1 - 0.5 * 19 / 20)


def test_cosine_by_hand() -> None:
    config = TrainConfig(schedule="cosine", warmup=0.1, final_lr=0.1)
    assert rate(9, 100, config) == 1.0
    assert rate(55, 100, config) == pytest.approx(0.1 + 0.9 / 2)
    assert rate(100, 100, config) == pytest.approx(0.1)


@given(
    st.integers(1, 500),
    st.sampled_from(["wsd", "cosine"]),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.5),
    st.floats(0, 1),
)
def test_rises_once_then_never_rises(
    steps: int, schedule: str, warmup: float, decay: float, final: float
) -> None:
    config = TrainConfig(schedule=schedule, warmup=warmup, decay=decay, final_lr=final)  # type: ignore[arg-type]
    values = [rate(step, steps, config) for step in range(steps)]
    assert all(0 < value <= 1 for value in values)
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
