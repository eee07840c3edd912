import jax
import numpy as np
import pytest
from small import make

from cxgrad_jax import analysis
from cxgrad_jax.analysis._features import inner_states, with_fast
from cxgrad_jax.learners._losses import cross_entropy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maml", "cxgrad"])
def test_agree_with_finite_differences(name, episode):
    learner, _, params = make(name, episode, num_steps=2)
    norms = analysis.gradient_norms(learner, params, episode)
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    fast = {path: np.asarray(states[1]) for path, states in inner_states(task).items()}

    @jax.jit
    def loss(fast):
        logits = learner.predict(params, with_fast(task, fast), episode.support_images)
        return cross_entropy(logits, episode.support_labels)

    for layer in ("block_3/conv", "head"):
        path, width = f"{layer}/kernel", 1e-5
        differences = []
        for i in range(fast[path].size):
            there = []
            for sign in (-1, 1):
                moved = fast[path].copy()
                moved.flat[i] += sign * width
                there.append(loss({**fast, path: moved}))
            differences.append((there[1] - there[0]) / (2 * width))
        np.testing.assert_allclose(norms[layer][1], np.linalg.norm(differences), rtol=1e-5)
