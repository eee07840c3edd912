"""Double precision, in which forms of a layer are compared."""

import jax
import pytest


@pytest.fixture
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def no_implicit_promotion():
    """JAX refuses to mix dtypes or ranks where the program does not say so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
