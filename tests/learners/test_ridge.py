"""Ridge regression: its two forms agree."""

import numpy as np
import pytest
from small import relative
from small_episode import TARGETS, features

from cxgrad_jax.learners._ridge import dual_ridge, primal_ridge, ridge

pytestmark = pytest.mark.usefixtures("double_precision")


def test_ridge_in_primal_and_dual_form_agree():
    for number, size in ((4, 9), (6, 6), (6, 3)):
        x, y = features(number, size), TARGETS[:number]
        solutions = [solve(x, y, 0.7) for solve in (primal_ridge, dual_ridge, ridge)]
        residual = x.T @ (x @ solutions[0] - y) + 0.7 * solutions[0]
        assert relative(solutions[0], solutions[1]) < 1e-11 and relative(solutions[2], solutions[1]) < 1e-11
        assert np.max(np.abs(residual)) < 1e-12
