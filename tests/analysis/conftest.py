"""Double precision, and a small episode."""

import pytest
from small import make_episode


@pytest.fixture(autouse=True)
def in_double_precision(double_precision):
    """All tests of this folder."""


@pytest.fixture
def episode():
    return make_episode()
