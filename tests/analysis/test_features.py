from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest
from small import WAY, make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import analysis

# Of those that step like MAML, MAML++ has the least in common with it.
ADAPTING = ["anil", "cxgrad", "l2f", "maml_plus_plus", "modgrad"]


class Skipping(nn.Module):
    """A model with its own names, an activation between the layers, and a layer that does not adapt."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.LayerNorm()(x.mean(axis=(1, 2)))
        return nn.Dense(WAY)(x)


@pytest.mark.slow_except("cxgrad")
@pytest.mark.parametrize("name", ADAPTING)
def test_last_features_are_the_logits_and_the_first_state_is_the_unadapted_model(name, episode):
    learner, model, params = make(name, episode)

    def all_of(params, episode):
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        start = analysis.unadapted(task)
        logits = [learner.predict(params, each, episode.query_images) for each in (task, start)]
        found = [analysis.features(learner, params, each, episode.query_images) for each in (task, start)]
        return logits, found, start.model, task.model

    logits, found, start, end = jax.jit(all_of)(params, episode)
    for task_logits, features in zip(logits, found, strict=True):
        assert [*features] == ["block_0", "block_1", "block_2", "block_3", "head"]
        np.testing.assert_array_equal(features["head"], task_logits)
    # What does not adapt is untouched; the kernels' directions are those of the meta-parameters.
    kernel = params["model"]["block_3"]["conv"]["kernel"]
    scale = np.linalg.norm(start["block_3"]["conv"]["kernel"]) / np.linalg.norm(kernel)
    np.testing.assert_allclose(start["block_3"]["conv"]["kernel"], scale * kernel, rtol=1e-12)
    assert np.isclose(scale, 1, rtol=1e-12) == (name not in ("cxgrad", "l2f"))
    changed = not np.array_equal(start["block_3"]["conv"]["kernel"], end["block_3"]["conv"]["kernel"])
    assert changed == (name != "anil")


def test_layers_of_any_model_as_the_next_one_receives_them(episode):
    model = Skipping()
    learner = cx.learners.maml(model, num_steps=1)
    params = learner.init(jax.random.key(0), episode.support_images)
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    found = analysis.features(learner, params, task, episode.query_images)
    assert {name: value.shape for name, value in found.items()} == {
        "Conv_0": (6, 4), "LayerNorm_0": (6, 4), "Dense_0": (6, WAY),
    }  # fmt: skip
    convolved = nn.Conv(4, (3, 3)).apply({"params": task.model["Conv_0"]}, episode.query_images)
    np.testing.assert_allclose(found["Conv_0"], nn.relu(convolved).mean(axis=(1, 2)), rtol=1e-12)  # pyright: ignore


def test_a_layer_may_take_its_input_by_keyword(episode):
    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(4)(inputs=x.reshape(len(x), -1)))
            return nn.Dense(WAY)(inputs=x)

    learner = cx.learners.maml(Named(), num_steps=1)
    params = learner.init(jax.random.key(0), episode.support_images)
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    found = analysis.features(learner, params, task, episode.query_images)
    np.testing.assert_allclose(found["Dense_1"], learner.predict(params, task, episode.query_images), rtol=1e-12)
    assert (found["Dense_0"] >= 0).all()


def test_a_batch_of_episodes(episode):
    learner, _, params = make("maml", episode, num_steps=1)
    episodes = [episode, make_episode(1)]
    one = jax.jit(lambda episode: analysis.cka(learner, params, episode))
    batch = jax.tree.map(lambda *x: np.stack(x), *episodes)
    found = jax.jit(jax.vmap(lambda episode: analysis.cka(learner, params, episode)))(batch)
    for i, each in enumerate(episodes):
        for layer, value in one(each).items():
            np.testing.assert_allclose(found[layer][i], value, rtol=1e-9)


@pytest.mark.parametrize("name", ["proto_net", "cavia"])
def test_a_learner_that_adapts_no_parameters_is_refused(name, episode):
    learner, _, params = make(name, episode)
    for analyse in (analysis.cka, analysis.embeddings, analysis.landscape, analysis.gradient_norms):
        with pytest.raises(cx.UserError, match=r"^this learner .* adapt returns no trace\["):
            jax.eval_shape(partial(analyse, learner), params, episode)
