"""Double precision, and a small episode."""

import jax
import pytest
from small import make_episode


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def episode():
    return make_episode()
