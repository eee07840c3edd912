"""Double precision, in which forms of a layer are compared."""

import jax
import pytest


@pytest.fixture
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
