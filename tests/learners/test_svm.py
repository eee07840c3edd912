"""The vector machine: feasible and optimal."""

import jax.numpy as jnp
import numpy as np
import pytest
from small import relative
from small_episode import TARGETS, features

from cxgrad_jax.learners._svm import svm_duals

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_the_svm_is_feasible_and_optimal(size):
    x = size * features()
    duals = np.asarray(svm_duals(x, TARGETS, 0.1))
    assert np.max(np.abs(duals.sum(axis=1))) < 1e-15 and np.max(duals - 0.1 * TARGETS) < 1e-15
    gradient = x @ x.T @ duals + duals - TARGETS

    # Optimal: within an image no weight can go from a class to another that has room and gains by it.
    for row, slope, bound in zip(duals, gradient, 0.1 * TARGETS, strict=True):
        assert np.max(slope) - np.min(slope[row < bound - 1e-9]) < 1e-9
    single = svm_duals(x.astype(np.float32), TARGETS.astype(np.float32), 0.1)
    assert relative(single, duals) < 1e-3


def test_the_svm_is_solved_for_large_features_that_no_plane_separates():
    rng, targets = np.random.default_rng(0), np.eye(5).repeat(5, axis=0)
    x = 100 * np.abs(rng.standard_normal((25, 8)))
    duals = np.asarray(svm_duals(jnp.asarray(x), jnp.asarray(targets), 0.1))
    assert np.max(duals - 0.1 * targets) < 1e-13 and np.max(np.abs(duals.sum(axis=1))) < 1e-13
    gradient = x @ x.T @ duals + duals - targets
    for row, slope, bound in zip(duals, gradient, 0.1 * targets, strict=True):
        assert np.max(slope) - np.min(slope[row < bound - 1e-9]) < 1e-7


def test_an_svm_that_is_not_solved_is_nan():
    x = 1e4 * np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    targets = jnp.eye(3, dtype=np.float32).repeat(10, axis=0)
    assert np.isnan(svm_duals(jnp.asarray(x), targets, 0.1)).all()
