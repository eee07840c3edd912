"""A classifier of the user's own, with flax's layers and running statistics, in both learners."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import cxgrad_jax as cx


class Small(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (4, 6):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=False)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.slow_except("maml")
@pytest.mark.parametrize("factory", [cx.learners.cxgrad, cx.learners.maml])
def test_a_user_defined_model_adapts_and_learns(factory):
    rng = np.random.default_rng(0)
    centres = rng.uniform(size=(3, 1, 8, 8, 3))
    images = np.clip(centres + 0.05 * rng.normal(size=(3, 4, 8, 8, 3)), 0, 1).astype(np.float32)
    labels = np.arange(3, dtype=np.int32)
    support, query = (x.reshape(-1, 8, 8, 3) for x in (images[:, :1], images[:, 1:]))
    episode = cx.Episode(support, labels, query, labels.repeat(3))

    learner = factory(Small(), num_steps=3, inner_lr=0.05)
    params = learner.init(jax.random.key(0), support)
    (loss, metrics), gradient = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(params, episode)
    assert np.isfinite(loss) and 0 <= metrics["accuracy"] <= 1
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradient))

    task = jax.jit(learner.adapt)(params, support, labels)
    assert task.trace["support_loss"][-1] < task.trace["support_loss"][0]
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), task.model, params["model"])
    assert moved["Conv_0"]["kernel"] and moved["Dense_0"]["bias"]
    assert not any(jax.tree.leaves(moved["BatchNorm_0"]))  # the rule by path: meta-learned only
    if factory is cx.learners.cxgrad:
        assert task.trace["gamma"].shape == (3, 2)
