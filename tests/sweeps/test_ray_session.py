"""Which Ray a sweep uses."""

from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.ray_session import _start_ray


@pytest.mark.parametrize("ours", [True, False])
def test_a_ray_that_someone_else_started_here_is_joined_only_if_asked(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an address Ray joins what `ray start` left on the machine, and the sweep, taking it
    for its own, would remove its files.
    """
    given: dict[str, Any] = {}

    def init(**options: Any) -> SimpleNamespace:
        given.update(options)
        return SimpleNamespace(address_info={"session_dir": "session"})

    monkeypatch.setattr("ray.init", init)
    assert _start_ray(ours) == "session"
    assert given["address"] == ("local" if ours else None)
