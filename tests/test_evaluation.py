"""Intervals by formula; evaluation of fixed episodes."""

import numpy as np
import pytest
from small import jitted, make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import evaluation


def test_intervals_by_formula():
    # The paper prints 69.82 ± 0.42 for 600 tasks of 75 predictions.
    assert evaluation.ci95_pooled(0.6982, 600 * 75) == pytest.approx(0.00424, abs=5e-6)
    accuracies = np.array([0.2, 0.4, 0.6, 0.8])
    assert evaluation.ci95_tasks(accuracies) == pytest.approx(1.96 * np.sqrt(0.05) / 2)


def test_accuracy_and_cross_entropy():
    logits = np.array([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]]])
    labels = np.array([0, 1])
    np.testing.assert_array_equal(evaluation.episode_accuracies(logits, labels), [1.0, 0.5])
    expected = np.mean([np.log1p(np.exp(x)) for x in (-2, -1, 3, -1)])
    assert evaluation.mean_cross_entropy(logits, labels) == pytest.approx(expected)


def test_logits_that_are_no_numbers_are_wrong_predictions():
    logits = np.array([[[np.nan, 0.0], [1.0, 0.0]]])
    np.testing.assert_array_equal(evaluation.episode_accuracies(logits, np.array([0, 0])), [0.5])


@pytest.fixture(scope="module")
def trained():
    episode = make_episode()
    learner, _, params = make("maml", episode, num_steps=1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * 6, 16, 16, 3), dtype=np.uint8)
    store = cx.data.ImageStore(images, np.arange(0, 25, 6, dtype=np.int32), tuple("abcd"), "noise", "test")
    return learner, params, cx.sampler(store, way=3, shot=1, query=2)


def test_evaluate_is_the_mean_over_the_first_episodes(trained):
    learner, params, sampler = trained
    result = cx.evaluate(learner, params, sampler, episodes=7)
    accuracies, learner = [], jitted(learner)
    for i in range(7):
        episode = sampler(i)
        adapted = learner.adapt(params, episode.support_images, episode.support_labels)
        logits = learner.predict(params, adapted, episode.query_images)
        accuracies.append(np.mean(np.argmax(logits, -1) == episode.query_labels))
    np.testing.assert_allclose(result.accuracies, accuracies, atol=1e-6)
    assert result.accuracy == pytest.approx(np.mean(accuracies))
    assert result.ci95 == pytest.approx(1.96 * np.std(accuracies) / np.sqrt(7))
    assert result.ci95_pooled == evaluation.ci95_pooled(result.accuracy, 7 * 6)
    assert repr(result).startswith(f"accuracy {result.accuracy:.4f} ± ") and "7 episodes" in repr(result)


def test_an_episode_has_the_same_accuracy_among_few_and_many(trained):
    few, many = (cx.evaluate(*trained, episodes=n) for n in (3, 45))
    np.testing.assert_array_equal(few.accuracies, many.accuracies[:3])


@pytest.mark.parametrize("episodes", [0, -1, 2.5])
def test_a_number_of_episodes_that_is_none(trained, episodes):
    with pytest.raises(cx.UserError, match=f"episodes is {episodes}; expected a whole number"):
        cx.evaluate(*trained, episodes=episodes)


def test_episodes_are_judged_by_their_own_labels(trained):
    learner, params, sampler = trained

    class Shuffled(cx.Sampler):
        def batch(self, indices):
            episodes = super().batch(indices)
            order = np.random.default_rng(0).permutation(episodes.query_labels.shape[1])
            return episodes._replace(
                query_images=episodes.query_images[:, order], query_labels=episodes.query_labels[:, order]
            )

    expected = cx.evaluate(learner, params, sampler, episodes=5)
    shuffled = cx.evaluate(learner, params, Shuffled(sampler.store, sampler.shape, sampler.seed), episodes=5)
    np.testing.assert_array_equal(shuffled.accuracies, expected.accuracies)
