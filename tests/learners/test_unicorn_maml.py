"""UNICORN-MAML: its first step, its symmetry and its order."""

import jax
import numpy as np
import pytest
from small import WAY, model, relative
from small_episode import EPISODE, logits_of, made

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, cross_entropy

pytestmark = pytest.mark.usefixtures("double_precision")


ORDER = np.array([2, 0, 1])  # a permutation of the classes


def test_unicorn_s_first_step_moves_the_head_alone():
    learner, params = made(cx.learners.unicorn_maml, num_steps=2)
    trace = jax.jit(learner.adapt)(params, EPISODE.support_images, EPISODE.support_labels).trace
    assert float(trace["support_loss"][0]) == pytest.approx(np.log(WAY), rel=1e-14)
    for path, values in trace["fast"].items():
        change = np.max(np.abs(values[1] - values[0]))
        assert change > 1e-4 if path == "head/kernel" else change < 1e-15, path

    # W_c = w + alpha / N (mean of class c - mean of all)
    embed = jax.jit(lambda params, images: apply_model(model(), params, images, "embed"))
    f = np.asarray(embed(params["model"], EPISODE.support_images))
    means = np.stack([f[EPISODE.support_labels == c].mean(axis=0) for c in range(WAY)])
    expected = params["model"]["head"]["kernel"] + 0.1 / WAY * (means - f.mean(axis=0)).T
    assert relative(trace["fast"]["head/kernel"][1], expected) < 1e-12


@pytest.mark.slow
def test_a_permutation_of_the_classes_permutes_unicorn_s_logits():
    renamed = EPISODE._replace(support_labels=ORDER[EPISODE.support_labels])
    for factory, same in ((cx.learners.unicorn_maml, True), (cx.learners.maml, False)):
        learner, params = made(factory, inner_lr=0.1, num_steps=3)
        ours, theirs = logits_of(learner, params, renamed)[:, ORDER], logits_of(learner, params)
        assert (relative(ours, theirs) < 1e-11) == same


@pytest.mark.slow
def test_unicorn_is_of_first_order():
    learner, params = made(cx.learners.unicorn_maml, num_steps=2)

    def query_loss(fast, adapted):
        return cross_entropy(learner.predict(params, adapted._replace(model=fast), EPISODE.query_images),
                             EPISODE.query_labels)  # fmt: skip

    adapted = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels)
    at_the_end = jax.grad(query_loss)(adapted.model, adapted)
    ours = jax.jit(jax.grad(lambda params: learner.loss(params, EPISODE)[0]))(params)["model"]
    assert max(np.max(np.abs(g)) for g in jax.tree.leaves(ours.pop("head"))) < 1e-15  # the sum over the classes
    assert max(np.max(np.abs(g)) for g in jax.tree.leaves(at_the_end.pop("head"))) > 1e-3
    assert relative(ours, at_the_end) < 1e-11


def test_a_model_without_a_head_or_classes_is_refused_by_unicorn():
    class Nameless(cx.models.Conv4.__mro__[1]):
        pass

    with pytest.raises(cx.UserError, match="Nameless has no num_classes"):
        cx.learners.unicorn_maml(Nameless())
