"""Accuracy by inner step, by the part that adapts, and over the orders of the classes."""

import jax
import numpy as np
import pytest
from small import make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import analysis

EPISODE = make_episode()


def relative(ours, expected):
    return float(np.max(np.abs(ours - expected)) / np.max(np.abs(expected)))


@pytest.fixture(scope="module")
def sampler():
    images = np.random.default_rng(0).integers(0, 256, (4 * 6, 16, 16, 3), dtype=np.uint8)
    store = cx.data.ImageStore(images, np.arange(0, 25, 6, dtype=np.int32), tuple("abcd"), "noise", "test")
    return cx.sampler(store, way=3, shot=1, query=2)


def logits(learner, params):
    adapted = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels)
    return learner.predict(params, adapted, EPISODE.query_images)


@pytest.mark.slow
@pytest.mark.parametrize("query_statistics", ["query", "support"])
def test_after_so_many_steps_as_a_learner_with_so_many(query_statistics):
    learners = [make("maml", EPISODE, num_steps=n, query_statistics=query_statistics, inner_lr=0.5) for n in (1, 2, 3)]
    learner, _, params = learners[-1]
    found = jax.jit(lambda p, e: analysis.logits_by_step(learner, p, e))(params, EPISODE)
    assert found.shape[0] == 4
    for steps, (fewer, _, _) in enumerate(learners, 1):
        assert relative(found[steps], logits(fewer, params)) < 1e-5
    assert relative(found[0], found[1]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("query_statistics", ["query", "support"])
def test_parts_of_maml_are_anil_and_boil(query_statistics):
    learner, model, params = make("maml", EPISODE, num_steps=2, inner_lr=0.5, query_statistics=query_statistics)
    found = jax.jit(lambda p, e: analysis.logits_by_part(learner, p, e))(params, EPISODE)
    only = {
        "head": lambda path, leaf: "adapted" if path.startswith("head/") else "meta",
        "body": lambda path, leaf: "adapted" if path.endswith("conv/kernel") else "meta",
    }
    for part, labels in only.items():
        alone = cx.learners.maml(
            model, num_steps=2, inner_lr=0.5, query_statistics=query_statistics, param_labels=labels
        )
        assert relative(found[part], logits(alone, params)) < 1e-5
    assert relative(found["all"], logits(learner, params)) < 1e-5
    assert all(relative(found[a], found[b]) > 1e-3 for a in found for b in found if a < b)


@pytest.mark.slow
def test_parts_of_a_jitted_learner_are_the_same():
    learner, _, params = make("maml", EPISODE, num_steps=1, inner_lr=0.5)
    jitted = learner._replace(adapt=jax.jit(learner.adapt))
    found, expected = (analysis.logits_by_part(each, params, EPISODE) for each in (jitted, learner))
    for part, part_logits in expected.items():
        assert relative(found[part], part_logits) < 1e-5
    assert relative(found["head"], found["body"]) > 1e-3


def test_a_learner_that_adapts_one_part_alone():
    for name, part, other in (("anil", "head", "body"), ("boil", "body", "head")):
        learner, _, params = make(name, EPISODE)
        found = analysis.logits_by_part(learner, params, EPISODE)
        np.testing.assert_array_equal(found[part], found["all"])
        np.testing.assert_array_equal(found[other], found["none"])


@pytest.mark.slow
def test_cxgrad_without_gradients_of_its_body_keeps_the_function_of_it():
    # A scaled kernel before a batch normalisation is the same function but for the normalisation's epsilon.
    learner, model, params = make("cxgrad", EPISODE, num_steps=2, context_dim=4)
    head = analysis.logits_by_part(learner, params, EPISODE)["head"]
    labels = lambda path, leaf: "adapted" if path.startswith("head/") else "meta"  # noqa: E731
    maml = cx.learners.maml(model, num_steps=2, param_labels=labels)
    assert relative(head, logits(maml, params)) < 0.02


def test_orders_keep_what_the_model_says_of_classes_that_are_not_there():
    model = cx.models.Conv4(num_classes=5, features=4)
    learner = cx.learners.maml(model, num_steps=1)
    params = learner.init(jax.random.key(0), EPISODE.support_images)
    found = analysis.permuted_logits(learner, params, EPISODE, 3)
    assert relative(found[0], logits(learner, params)) < 1e-5
    other = EPISODE._replace(support_labels=2 * EPISODE.support_labels)
    with pytest.raises(cx.UserError, match=r"the support labels of the episode are \[0, 2, 4\]; expected 0 to 2"):
        analysis.permuted_logits(learner, params, other, 3)


@pytest.mark.slow
def test_classes_in_every_order(sampler):
    learner, _, params = make("maml", EPISODE, num_steps=2, inner_lr=0.5)
    found = cx.evaluate_permutations(learner, params, sampler, episodes=3)
    assert found.accuracies.shape == (3, 6)
    np.testing.assert_allclose(found.accuracies[:, 0], cx.evaluate(learner, params, sampler, episodes=3).accuracies)
    np.testing.assert_allclose(found.mean.accuracies, found.accuracies.mean(1))
    assert found.worst.accuracy <= found.mean.accuracy <= found.best.accuracy
    alike, _, params = make("proto_net", EPISODE)
    found = cx.evaluate_permutations(alike, params, sampler, episodes=3)
    assert np.ptp(found.accuracies, axis=1).max() == 0


def test_too_many_orders_are_refused():
    with pytest.raises(cx.UserError, match="20 classes have 2432902008176640000 permutations; expected at most 6"):
        analysis.permutations(20)


@pytest.mark.slow
def test_the_last_step_and_all_parts_are_the_evaluation(sampler):
    learner, _, params = make("maml", EPISODE, num_steps=2)
    expected = cx.evaluate(learner, params, sampler, episodes=5)
    by_step = cx.evaluate_by_step(learner, params, sampler, episodes=5)
    by_part = cx.evaluate_by_part(learner, params, sampler, episodes=5)
    assert len(by_step) == 3 and tuple(by_part) == analysis.PARTS
    for ours in (by_step[-1], by_part["all"]):
        np.testing.assert_allclose(ours.accuracies, expected.accuracies, atol=1e-6)
        assert ours.ci95 == pytest.approx(expected.ci95, abs=1e-6)
    np.testing.assert_allclose(by_step[0].accuracies, by_part["none"].accuracies)


def test_what_adapts_nothing_has_no_steps(sampler):
    learner, _, params = make("proto_net", EPISODE)
    for question in (cx.evaluate_by_step, cx.evaluate_by_part):
        with pytest.raises(cx.UserError, match="this learner adapts no parameters"):
            question(learner, params, sampler, episodes=2)
