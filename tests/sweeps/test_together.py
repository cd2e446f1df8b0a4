"""What is decided around the processes of one trial, without Ray."""

import pytest
from ray import train
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from core.errors import InputError
from sweeps.together import _cause, room

OURS = UserExceptionWithTraceback(OSError("disk full"), "Traceback:\n  ...\nOSError: disk full\n")


def test_room_is_that_of_the_scarcest_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 13.0, "GPU": 4.0, "memory": 1e9})
    assert room(2, {"CPU": 1.0}) == 6
    assert room(2, {"CPU": 1.0, "GPU": 1.0}) == 2
    with pytest.raises(InputError, match=r"processes 5: .*'GPU': 1.0.*'GPU': 4.0.* give fewer"):
        room(5, {"CPU": 1.0, "GPU": 1.0})


def test_an_exception_is_a_cause_and_a_death_is_tried_again() -> None:
    assert _cause(train.WorkerGroupError("", {0: OURS})) == "OSError: disk full"
    died = train.WorkerGroupError("", {0: RuntimeError("actor died"), 1: OURS})
    with pytest.raises(train.WorkerGroupError):
        _cause(died)
