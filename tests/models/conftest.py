"""No implicit promotion, in the layers' tests."""

import jax
import pytest


@pytest.fixture(autouse=True)
def no_implicit_promotion():
    """JAX refuses to mix dtypes or ranks where the program does not say so."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
