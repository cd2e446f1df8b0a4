"""What is decided around the processes of one trial, without Ray."""

import pytest
from ray import train
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from core.errors import InputError
from sweeps.together import _cause, room

OURS = UserExceptionWithTraceback(OSError("disk full"), "Traceback:\n  ...\nOSError: disk full\n")


def test_room_is_that_of_the_scarcest_resource_for_the_largest_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 13.0, "GPU": 4.0, "memory": 9e9})
    small = {"CPU": 1.0, "memory": 1e8}
    assert room(2, [small, small]) == 6
    assert room(2, [small, small | {"memory": 2e9}]) == 1
    assert room(2, [small | {"GPU": 1.0}]) == 2
    with pytest.raises(InputError, match=r"processes 5: .*'GPU': 5.0.*'GPU': 4.0.* give fewer"):
        room(5, [small | {"GPU": 1.0}])
    with pytest.raises(InputError, match=r"'memory': 12600000000\.0"):
        room(3, [small | {"memory": 4e9}])


def test_an_exception_is_a_cause_and_a_death_is_tried_again() -> None:
    assert _cause(train.WorkerGroupError("", {0: OURS})) == "OSError: disk full"
    died = train.WorkerGroupError("", {0: RuntimeError("actor died"), 1: OURS})
    with pytest.raises(train.WorkerGroupError):
        _cause(died)
