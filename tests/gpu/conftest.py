"""The device of these tests: cuda, or what TEST_DEVICE says, so that they can be tried without."""

import os

import pytest
import torch

from tests.core.conftest import dataset, make_config

__all__ = ["dataset", "make_config"]


@pytest.fixture(scope="session")
def device() -> str:
    name = os.environ.get("TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("no CUDA GPU here; TEST_DEVICE=cpu tries the tests themselves")
    return name
