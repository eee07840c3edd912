import jax
import numpy as np
import pytest
from small import make

from cxgrad_jax import analysis
from cxgrad_jax.analysis import features, linear_cka, unadapted


def by_definition(x, y):
    """In the space of the features, as Kornblith et al. write it."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.linalg.norm
    return norm(x.T @ y) ** 2 / (norm(x.T @ x) * norm(y.T @ y))


@pytest.mark.parametrize(("n", "d1", "d2"), [(3, 5, 7), (20, 4, 4), (9, 1, 30)])
def test_is_the_definition_and_has_its_invariances(n, d1, d2):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d1)), rng.normal(size=(n, d2)) + 3
    value = linear_cka(x, y)
    np.testing.assert_allclose(value, by_definition(x, y), rtol=1e-12)
    assert 0 <= value <= 1
    rotation = np.linalg.qr(rng.normal(size=(d2, d2)))[0]
    np.testing.assert_allclose(linear_cka(x, 0.1 * y @ rotation + 5), value, rtol=1e-11)
    np.testing.assert_allclose(linear_cka(y, x), value, rtol=1e-12)
    np.testing.assert_allclose(linear_cka(x, -2 * x + 1), 1, rtol=1e-12)
    stretched = linear_cka(x, y * np.logspace(0, 1, d2))
    assert d2 == 1 or abs(stretched - value) > 1e-3  # a map that is not orthogonal does matter


def test_all_products_have_the_highest_precision():
    x = np.ones((3, 4))
    products = [e for e in jax.make_jaxpr(linear_cka)(x, x).eqns if e.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert [e.params["precision"] for e in products] == [(highest, highest)] * 3


@pytest.mark.slow
def test_of_an_episode(episode):
    learner, _, params = make("maml", episode, inner_lr=0.1, num_steps=2)
    found = jax.jit(lambda: analysis.cka(learner, params, episode))()
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    before, after = (features(learner, params, t, episode.query_images) for t in (unadapted(task), task))
    for layer, value in found.items():
        np.testing.assert_allclose(value, by_definition(np.asarray(before[layer]), np.asarray(after[layer])), rtol=1e-9)
        assert value < 1 - 1e-6


def test_what_does_not_adapt_keeps_its_features(episode):
    learner, _, params = make("anil", episode, num_steps=2)
    found = jax.jit(lambda p, e: analysis.cka(learner, p, e))(params, episode)
    head = found.pop("head")
    np.testing.assert_allclose(list(found.values()), 1, rtol=1e-12)
    assert head < 1 - 1e-6
