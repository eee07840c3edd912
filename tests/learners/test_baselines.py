"""What must hold of the gradient-based baselines whatever the numbers: reductions to others, finite differences."""

import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small import WAY, first_params, make_episode, model, relative

import cxgrad_jax as cx
from cxgrad_jax.learners import default_labels
from cxgrad_jax.learners._boil import body_labels
from cxgrad_jax.learners._labels import ADAPTED, META
from cxgrad_jax.learners._maml_plus_plus import step_weights
from cxgrad_jax.learners._modgrad import last_two_convolutions

pytestmark = pytest.mark.usefixtures("double_precision")

MAML = partial(cx.learners.maml, num_steps=2)
LEARNERS = {
    "alfa": partial(cx.learners.alfa, num_steps=2),
    "anil": partial(cx.learners.anil, num_steps=2),
    "boil": cx.learners.boil,
    "cavia": partial(cx.learners.cavia, context_dim=6),
    "l2f": partial(cx.learners.l2f, num_steps=2),
    "maml_plus_plus": partial(cx.learners.maml_plus_plus, num_steps=2),
    "meta_sgd": partial(cx.learners.meta_sgd, initial_lr=0.01),
    "modgrad": partial(cx.learners.modgrad, context_dim=6, inner_lr=0.01),
}
every_learner = pytest.mark.parametrize("factory", LEARNERS.values(), ids=LEARNERS.keys())


def make(factory, **hyper_parameters):
    learner = build(factory, **hyper_parameters)
    return learner, first_params(learner, make_episode().support_images)


@functools.cache  # so that what was compiled once need not be again
def build(factory, **hyper_parameters):
    return factory(model(), **hyper_parameters)


@functools.cache
def compiled(learner):
    """``(params, episode, iteration) -> (query logits, loss, outer gradient)``."""

    def outcome(params, episode, iteration):
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        logits = learner.predict(params, task, episode.query_images)
        (loss, _), gradient = jax.value_and_grad(learner.loss, has_aux=True)(params, episode, iteration=iteration)
        return logits, loss, gradient

    return jax.jit(outcome)


def outcome(learner, params, iteration=None):
    return compiled(learner)(params, make_episode(), iteration)


def head_only(path, leaf):
    return ADAPTED if path.startswith("head/") else META


def constant_output(layers, values):
    """An MLP's parameters with an output that is ``values`` whatever its input."""
    output = {"kernel": jnp.zeros_like(layers["output"]["kernel"]), "bias": jnp.asarray(values)}
    return {**layers, "output": output}


def agrees_with(learner, params, other, other_params, tolerance=1e-11):
    """Same logits after adaptation, same loss, same outer gradient of what is in both."""
    *ours, gradient = outcome(learner, params)
    *theirs, expected = outcome(other, other_params)
    return relative((ours, gradient["model"]), (theirs, expected["model"])) < tolerance


@pytest.mark.slow
def test_alfa_that_generates_one_and_zero_is_maml():
    alfa, params = make(LEARNERS["alfa"])
    maml, start = make(MAML)
    n = len(params["generator"]["output"]["bias"]) // 2
    params["model"] = start["model"]
    assert not agrees_with(alfa, params, maml, start)
    params["generator"] = constant_output(params["generator"], [1.0] * n + [0.0] * n)
    assert agrees_with(alfa, params, maml, start)


@pytest.mark.slow
def test_l2f_that_forgets_nothing_is_maml():
    l2f, params = make(LEARNERS["l2f"])
    maml, start = make(MAML)
    params["model"] = start["model"]
    assert not agrees_with(l2f, params, maml, start)
    params["attenuator"] = constant_output(params["attenuator"], [50.0] * len(params["attenuator"]["output"]["bias"]))
    assert agrees_with(l2f, params, maml, start)


@pytest.mark.slow
def test_meta_sgd_with_a_constant_rate_is_one_step_of_maml():
    meta_sgd, params = make(cx.learners.meta_sgd, initial_lr=0.01, param_labels=default_labels)
    maml, start = make(cx.learners.maml, num_steps=1)
    params["model"] = start["model"]
    assert agrees_with(meta_sgd, params, maml, start)
    every_parameter, params = make(LEARNERS["meta_sgd"])
    assert not agrees_with(every_parameter, {**params, "model": start["model"]}, maml, start)


@pytest.mark.slow
def test_maml_plus_plus_with_equal_rates_rows_and_the_last_loss_is_maml():
    plus_plus, params = make(LEARNERS["maml_plus_plus"])
    maml, start = make(MAML)
    kernels, rows = (jax.tree.map(lambda x: x, start["model"]) for _ in range(2))
    for block in (f"block_{i}" for i in range(4)):
        kernels[block]["norm"] = jax.tree.map(lambda x: jnp.stack([x, x]), rows[block]["norm"])
    params["model"] = kernels
    (*ours, gradient), (*theirs, expected) = outcome(plus_plus, params), outcome(maml, start)
    assert relative(ours, theirs) < 1e-11
    for block in (f"block_{i}" for i in range(4)):  # what one row has in MAML, two share here
        gradient["model"][block]["norm"] = jax.tree.map(lambda x: x.sum(axis=0), gradient["model"][block]["norm"])
    assert relative(gradient["model"], expected["model"]) < 1e-11


@pytest.mark.slow
def test_the_multi_step_loss_is_the_weighted_sum_of_shorter_runs():
    plus_plus, params = make(LEARNERS["maml_plus_plus"], multi_step_epochs=4, epoch_iterations=10)
    start = jax.tree.map(lambda x: x, params["model"])
    for block in (f"block_{i}" for i in range(4)):
        start[block]["norm"] = jax.tree.map(lambda x: x[0], start[block]["norm"])
    shorter = [float(outcome(make(cx.learners.maml, num_steps=k)[0], {"model": start})[1]) for k in (1, 2)]
    for iteration, weights in ((0, (0.5, 0.5)), (25, (0.25, 0.75)), (40, (0.0, 1.0)), (10**6, (0.0, 1.0))):
        found = float(outcome(plus_plus, params, iteration)[1])
        assert found == pytest.approx(np.dot(weights, shorter), rel=1e-12)
    assert float(outcome(plus_plus, params)[1]) == pytest.approx(shorter[-1], rel=1e-12)


@pytest.mark.parametrize("num_steps", [2, 3, 5])
def test_the_weights_of_the_multi_step_loss_sum_to_one_and_move_to_the_last(num_steps):
    weights = np.stack([step_weights(epoch, num_steps, 15) for epoch in range(15)])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(weights[0], 1 / num_steps)
    assert np.all(np.diff(weights[:, -1]) > 0) and weights.min() >= 0.03 / num_steps


@pytest.mark.slow
def test_modgrad_whose_masks_are_one_is_one_step_of_maml_on_two_convolutions():
    modgrad, params = make(LEARNERS["modgrad"])
    maml, start = make(cx.learners.maml, num_steps=1, param_labels=last_two_convolutions)
    params["model"] = start["model"]
    assert not agrees_with(modgrad, params, maml, start)
    for block in ("block_2", "block_3"):
        vectors = params["modulator"][block]["conv"]["kernel"]
        for name in vectors:
            vectors[name] = constant_output(vectors[name], jnp.ones_like(vectors[name]["output"]["bias"]))
    assert agrees_with(modgrad, params, maml, start)


@pytest.mark.slow
def test_anil_and_boil_share_out_what_maml_adapts():
    anil, start = make(cx.learners.anil, inner_lr=0.1, num_steps=2)
    assert agrees_with(anil, start, make(MAML, inner_lr=0.1, param_labels=head_only)[0], start)
    one_step = {"inner_lr": 0.1, "num_steps": 1}
    everything = make(cx.learners.maml, param_labels=lambda path, leaf: ADAPTED, **one_step)[0]
    episode = make_episode()
    tasks = [
        jax.jit(learner.adapt)(start, episode.support_images, episode.support_labels).model
        for learner in (everything, make(cx.learners.anil, **one_step)[0], make(cx.learners.boil, **one_step)[0])
    ]
    whole, head, body = tasks
    assert relative({**body, "head": head["head"]}, whole) < 1e-11
    assert relative(body["head"], start["model"]["head"]) == 0 and relative(head["block_0"], whole["block_0"]) > 0
    assert body_labels("head/kernel", jnp.zeros(1)) == META


@pytest.mark.slow
def test_cavia_without_steps_worth_of_rate_does_not_adapt():
    episode = make_episode()
    permuted = episode._replace(support_labels=episode.support_labels[::-1].copy())
    for factory, adapts in ((partial(LEARNERS["cavia"], inner_lr=1e-300), False), (LEARNERS["cavia"], True)):
        cavia, params = make(factory)
        ours, theirs = (compiled(cavia)(params, each, None)[0] for each in (episode, permuted))
        assert (relative(ours, theirs) > 1e-6) == adapts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l2f", "maml_plus_plus"])
def test_first_order_at_the_start_and_second_order_later(name):
    annealed, params = make(LEARNERS[name], first_order_epochs=2, epoch_iterations=10)
    first, _ = make(LEARNERS[name], first_order=True, epoch_iterations=10)
    early, late = (outcome(annealed, params, iteration)[2] for iteration in (19, 20))
    assert relative(early, outcome(first, params, 19)[2]) < 1e-11
    assert relative(late, outcome(first, params, 20)[2]) > 1e-6


# Not of ALFA and L2F, whose outer gradient holds the means of inner gradients constant.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LEARNERS.keys() - {"alfa", "l2f"}))
def test_gradient_against_finite_differences(name):
    learner, params = make(LEARNERS[name])
    flat, restore = ravel_pytree(params)
    iteration = 3 if name == "maml_plus_plus" else None
    gradient, h = ravel_pytree(outcome(learner, params, iteration)[2])[0], 1e-6
    for seed in range(2):
        direction = jax.random.normal(jax.random.key(seed), flat.shape) * (jnp.abs(flat) + 1e-3)
        ahead, behind = (outcome(learner, restore(flat + sign * h * direction), iteration)[1] for sign in (1, -1))
        numeric = (ahead - behind) / (2 * h)
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(numeric), rel=2e-5)


@pytest.mark.slow_except("conv4-alfa", "conv4-l2f")
@every_learner
@pytest.mark.parametrize(
    "network", [cx.models.Conv4(WAY, use_bias=True), cx.models.ResNet12(WAY)], ids=["conv4", "resnet12"]
)
def test_every_backbone(factory, network):
    learner, size = factory(network), 84
    images = jax.ShapeDtypeStruct((WAY, size, size, 3), np.uint8)
    labels = jax.ShapeDtypeStruct((WAY,), np.int32)
    params = jax.eval_shape(learner.init, jax.random.key(0), images)
    task = jax.eval_shape(learner.adapt, params, images, labels)
    logits = jax.eval_shape(learner.predict, params, task, images)
    assert logits.shape == (WAY, WAY) and {logits.dtype, *(x.dtype for x in jax.tree.leaves(params))} == {
        np.dtype(np.float32)
    }
    iteration = jax.ShapeDtypeStruct((), np.int32)
    episode = cx.Episode(images, labels, images, labels)
    gradient = jax.eval_shape(jax.grad(lambda p, e, i: learner.loss(p, e, iteration=i)[0]), params, episode, iteration)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


class Between(nn.Module):
    """A classifier whose logits are not those of its head on its features, unless the slope is 1."""

    slope: float
    use_bias: bool = True
    num_classes: int = WAY

    def setup(self):
        self.body, self.head = nn.Dense(4), nn.Dense(WAY, use_bias=self.use_bias)

    def embed(self, x):
        return self.body(x.reshape(len(x), -1))

    def __call__(self, x):
        return self.head(nn.leaky_relu(self.embed(x), self.slope))


def test_anil_refuses_a_model_that_is_not_its_head_on_its_features():
    images = np.zeros((2, 4, 4, 1), np.float32)
    for compiled in (False, True):  # cx.fit compiles init
        inits = (cx.learners.anil(model).init for model in (Between(1.0), Between(0.0), Between(1.0, use_bias=False)))
        right, *wrong = (jax.jit(init) if compiled else init for init in inits)
        assert right(jax.random.key(0), images).keys() == {"model"}
        for init in wrong:
            with pytest.raises(cx.UserError, match="^the logits of Between are not those of its head on the features"):
                init(jax.random.key(0), images)


class Plain(cx.models.Conv4.__mro__[1]):
    """A classifier without access to its features."""

    def __call__(self, x):
        return x.reshape(len(x), -1)[:, :WAY] * self.param("scale", jax.nn.initializers.ones, (WAY,))


class Method(Plain):
    def film_features(self):
        return 4


@pytest.mark.parametrize(
    ("make_learner", "words"),
    [
        (lambda: cx.learners.anil(Plain()), r"Plain has no method embed\(images\)"),
        (lambda: cx.learners.cavia(Plain()), "Plain has no film_features"),
        (lambda: cx.learners.cavia(Method()), "Method has no film_features that is a number"),
        (lambda: cx.learners.cavia(model(), context_dim=0), "context_dim is 0; expected at least 1"),
        (lambda: cx.learners.modgrad(model(), num_passes=0), "num_passes is 0; expected at least 1"),
        (
            lambda: make(partial(cx.learners.modgrad, param_labels=head_only)),
            r"head/kernel of shape \(4, 3\) cannot adapt",
        ),
    ],
)
def test_mistakes_get_one_line(make_learner, words):
    with pytest.raises(cx.UserError, match=words) as error:
        make_learner()
    assert "\n" not in str(error.value)
