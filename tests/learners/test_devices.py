"""A learner gives the same numbers inside anybody's ``shard_map``, whichever argument lies on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from small import make, make_episode

import cxgrad_jax as cx

pytestmark = pytest.mark.usefixtures("double_precision")

EPISODES = [make_episode(), make_episode(1)]
BATCH = jax.tree.map(lambda *x: np.stack(x), *EPISODES)
FEW_STEPS = {"baseline_plus_plus": {"num_epochs": 3}, "metal": {"num_steps": 1}, "modgrad": {"context_dim": 4}}
CASES = [(name, {}) for name in cx.learners.NAMES]
CASES += [("baseline_plus_plus", {"classifier": "linear"}), ("metaoptnet", {"head": "svm"})]


MESH = Mesh(np.array(jax.devices()[:2]), ("own",))


def one(tree, i=0):
    return jax.tree.map(lambda x: x[i], tree)


def close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * max(np.max(np.abs(b)), 1e-3))


@pytest.mark.slow_except("proto_net", "linear", "svm")
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda x: "-".join(x.values()) if isinstance(x, dict) else x)
def test_losses_and_gradients_in_a_callers_shard_map(name, options):
    if name == "metal" and jax.__version_info__ < (0, 8):
        pytest.skip("jax 0.7 raises TypeError where it differentiates a concatenation twice inside shard_map")
    learner, _, params = make(name, EPISODES[0], **FEW_STEPS.get(name, {}), **options)

    def losses(params, episodes):
        return learner.loss(one(params), one(episodes))[0][None]

    def mean_of(of_params, of_episodes):
        """The mean loss, with the first axis of an argument on two devices where its spec says so."""
        sharded = jax.shard_map(losses, mesh=MESH, in_specs=(of_params, of_episodes), out_specs=P("own"))
        return jax.jit(jax.value_and_grad(lambda params, episodes: jnp.mean(sharded(params, episodes))))

    each = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    others = jax.tree.map(lambda x: 1.05 * x, params)
    first, second, of_others = ((x[0][0], x[1]) for x in (each(*y) for y in (
        (params, EPISODES[0]), (params, EPISODES[1]), (others, EPISODES[0]),
    )))  # fmt: skip
    value, gradients = mean_of(P(), P("own"))(jax.tree.map(lambda x: x[None], params), BATCH)
    close((value, one(gradients)), jax.tree.map(lambda a, b: (a + b) / 2, first, second))
    both = jax.tree.map(lambda *x: jnp.stack(x), params, others)
    value, gradients = mean_of(P("own"), P())(both, jax.tree.map(lambda x: x[:1], BATCH))
    close(value, (first[0] + of_others[0]) / 2)
    close((one(gradients), one(gradients, 1)), jax.tree.map(lambda x: x / 2, (first[1], of_others[1])))


@pytest.mark.slow_except("proto_net")
@pytest.mark.parametrize("name", ["proto_net", "maml"])
def test_a_mean_over_episodes_in_a_callers_shard_map(name):
    learner, _, params = make(name, EPISODES[0])
    mean = cx.mean_loss(learner)

    def on_devices(params, batch):
        def of_each(params, batch):
            return jax.lax.pmean(mean(params, batch)[0], "own")

        return jax.shard_map(of_each, mesh=MESH, in_specs=(P(), P("own")), out_specs=P())(params, batch)

    ours, theirs = (
        jax.jit(jax.value_and_grad(function))(params, BATCH)
        for function in (on_devices, lambda params, batch: mean(params, batch)[0])
    )
    close(ours, theirs)
