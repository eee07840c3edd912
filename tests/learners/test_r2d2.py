"""R2-D2: what its ridge regression regularises, and logarithms of the same numbers."""

from typing import Any

import numpy as np
import pytest
from small import relative
from small_episode import TARGETS, features, logits_of, made

import cxgrad_jax as cx
from cxgrad_jax.learners._r2d2 import ridge_with_bias
from cxgrad_jax.learners._ridge import primal_ridge

pytestmark = pytest.mark.usefixtures("double_precision")


def test_r2d2_regularises_by_so_many_times_lambda_and_its_bias_too():
    x = features()
    with_bias: Any = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    assert relative(ridge_with_bias(x, TARGETS, 2.0), primal_ridge(with_bias, TARGETS, 2.0 * len(x))) < 1e-11


def test_r2d2_learns_logarithms_of_the_same_numbers():
    plain, params = made(cx.learners.r2d2, learned_regularisation=True, regularisation=3.0, initial_scale=0.5)
    logarithmic, others = made(
        cx.learners.r2d2, learned_regularisation=True, regularisation=3.0, initial_scale=0.5, logarithmic=True
    )
    assert float(others["scale"]) == pytest.approx(np.log10(0.5)) and float(params["scale"]) == 0.5
    assert relative(logits_of(plain, params), logits_of(logarithmic, others)) < 1e-12
