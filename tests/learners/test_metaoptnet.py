"""MetaOptNet: its scores are twice the closed form."""

from functools import partial

import pytest
from small import model, relative
from small_episode import EPISODE, TARGETS, logits_of, made

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model
from cxgrad_jax.learners._ridge import primal_ridge

pytestmark = pytest.mark.usefixtures("double_precision")


def test_ridge_scores_of_metaoptnet_are_twice_the_closed_form():
    learner, params = made(partial(cx.learners.metaoptnet, regularisation=5.0))
    support, query = (apply_model(model(), params["model"], x, "embed") for x in
                      (EPISODE.support_images, EPISODE.query_images))  # fmt: skip
    plain = query @ primal_ridge(support, TARGETS, 5.0)
    assert relative(logits_of(learner, params), 2 * plain) < 1e-10
