"""What must hold of CxGrad and MAML whatever the numbers: reductions, invariances, finite differences."""

from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small import WAY, first_params, jitted, make_episode, meta_gradient, model, relative

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_model, cross_entropy

cxgrad_module = import_module("cxgrad_jax.learners._cxgrad")  # the package's name is the factory


EITHER_WAY = (cx.learners.cxgrad, cx.learners.cxgrad_explicit)

# The context's gradient is what the normalisation's epsilon of 1e-5 leaves of numbers of order one, so its rounding,
# and that of all that it feeds, is 1e5 times float64's.
CONTEXT_ROUNDING = 1e-10


pytestmark = pytest.mark.usefixtures("double_precision")


def make(factory, model_changes=None, **hyper_parameters):
    if factory in EITHER_WAY:
        hyper_parameters.setdefault("context_dim", 6)
    learner = factory(
        model(**(model_changes or {})), num_steps=hyper_parameters.pop("num_steps", 2), **hyper_parameters
    )
    return jitted(learner), first_params(learner, make_episode().support_images)


def kernels(params):
    return [params["model"][f"block_{i}"]["conv"]["kernel"] for i in range(4)]


def test_cxgrad_whose_scaling_is_the_identity_is_maml(monkeypatch):
    cxgrad, params = make(cx.learners.cxgrad)
    maml, _ = make(cx.learners.maml)

    # gamma_l = ||w_l|| makes w_hat = w; with that in place of the generator nothing else may differ.
    real_norm = jnp.linalg.norm
    monkeypatch.setattr(cxgrad_module, "scaling_factors", lambda generator, context: jnp.ones(4) + 0 * context[:1])
    monkeypatch.setattr(jnp.linalg, "norm", lambda x: jnp.ones((), x.dtype))
    ours = meta_gradient(cxgrad, params, make_episode())["model"]
    monkeypatch.setattr(jnp.linalg, "norm", real_norm)
    theirs = meta_gradient(maml, {"model": params["model"]}, make_episode())["model"]
    assert relative(ours, theirs) < 1e-12


@pytest.mark.slow
def test_without_epsilon_the_context_stays_at_zero():
    # Images with noise everywhere: a constant channel would have no variance to divide by.
    learner, params = make(cx.learners.cxgrad, model_changes={"norm_epsilon": 0.0})
    episode = make_episode()
    with_epsilon, _ = make(cx.learners.cxgrad)
    still = learner.adapt(params, episode.support_images, episode.support_labels).trace["context"]
    moving = with_epsilon.adapt(params, episode.support_images, episode.support_labels).trace["context"]
    assert np.max(np.abs(still)) < 1e-12 < 1e-7 < np.max(np.abs(moving))


def test_logits_move_by_order_epsilon_under_any_scaling():
    images = make_episode().query_images

    def change(epsilon):
        network = model(norm_epsilon=epsilon)
        apply = jax.jit(network.apply)
        params = jax.jit(network.init)(jax.random.key(0), images)["params"]
        scaled = jax.tree.map(lambda x: 0.3 * x if x.ndim == 4 else x, params)
        return np.max(np.abs(apply({"params": scaled}, images) - apply({"params": params}, images)))

    assert change(1e-6) / change(1e-8) == pytest.approx(100, rel=0.05)
    assert change(1e-6) > 1e-7


@pytest.mark.slow_except("batch")
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_scaling_a_kernel_divides_its_gradient(norm):
    # Eq. 4 and 5 of the paper, for all three normalisations.
    episode = make_episode()
    network = cx.models.Conv4(num_classes=WAY, features=8, norm=norm, norm_epsilon=1e-10)
    params = jax.jit(network.init)(jax.random.key(0), episode.support_images)["params"]
    scaled = jax.tree.map(lambda x: 2.5 * x if x.ndim == 4 else x, params)

    @jax.jit
    def loss(p):
        logits = jnp.asarray(network.apply({"params": p}, episode.support_images))
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(logits)), episode.support_labels])

    np.testing.assert_allclose(loss(scaled), loss(params), rtol=1e-5)
    for ours, theirs in zip(*(kernels({"model": jax.jit(jax.grad(loss))(p)}) for p in (scaled, params)), strict=True):
        np.testing.assert_allclose(2.5 * ours, theirs, atol=1e-4 * np.max(np.abs(theirs)))


def test_kernels_have_norm_gamma_before_each_step():
    # With next to no alpha a step does nothing but scale, so the adapted kernels show the last scaling.
    for steps in (1, 3):
        learner, params = make(cx.learners.cxgrad, num_steps=steps, inner_lr=1e-300)
        episode = make_episode()
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        norms = [np.linalg.norm(kernel) for kernel in kernels({"model": task.model})]
        np.testing.assert_allclose(norms, task.trace["gamma"][-1], rtol=1e-12)


@pytest.mark.slow
def test_meta_gradient_has_no_radial_part():
    learner, params = make(cx.learners.cxgrad)
    gradient = meta_gradient(learner, params, make_episode())
    for kernel, g in zip(kernels(params), kernels(gradient), strict=True):
        assert abs(np.vdot(kernel, g)) < 1e-13 * np.linalg.norm(kernel) * np.linalg.norm(g) * kernel.size


@pytest.mark.slow
@pytest.mark.parametrize(
    "learner_of",
    [
        partial(make, cx.learners.maml),
        # The official first context step is a constant by decree, which no finite difference can see.
        partial(make, cx.learners.cxgrad, differentiate_first_context=True),
        partial(make, cx.learners.cxgrad, differentiate_first_context=True, context_update="step"),
        partial(make, cx.learners.cxgrad_explicit),
        partial(make, cx.learners.cxgrad_explicit, context_update="step"),
    ],
)
def test_meta_gradient_against_finite_differences(learner_of):
    learner, params = learner_of()
    episode = make_episode()
    flat, restore = ravel_pytree(params)
    loss = jax.jit(lambda x: learner.loss(restore(x), episode)[0])
    gradient = jax.jit(jax.grad(loss))(flat)
    for seed in range(3):
        direction = jax.random.normal(jax.random.key(seed), flat.shape)
        h = 1e-6
        numeric = (loss(flat + h * direction) - loss(flat - h * direction)) / (2 * h)
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(numeric), rel=2e-5)


@pytest.mark.slow
def test_the_official_first_context_step_is_a_constant():
    # Its gradient equals that of a learner given the same context from outside.
    episode = make_episode()
    official, params = make(cx.learners.cxgrad, num_steps=1)
    paper, _ = make(cx.learners.cxgrad, num_steps=1, differentiate_first_context=True)
    constant = meta_gradient(official, params, episode)["generator"]["hidden"]["kernel"]
    attached = meta_gradient(paper, params, episode)["generator"]["hidden"]["kernel"]
    assert relative(constant, attached) > 0.01
    # After one step the hidden kernel is reached only through gamma(nu_1), an outer product with nu_1.
    context = official.adapt(params, episode.support_images, episode.support_labels).trace["context"][0]
    assert np.linalg.matrix_rank(constant, tol=1e-12 * np.linalg.norm(constant)) == 1
    cosine = np.abs(constant.T @ context) / np.linalg.norm(constant, axis=0).clip(1e-300) / np.linalg.norm(context)
    assert np.all((cosine > 1 - 1e-9) | (np.linalg.norm(constant, axis=0) == 0))


def test_explicit_and_implicit_scaling_make_the_same_step():
    # With the context at zero they differ by the normalisation's epsilon alone.
    models = []
    for factory in EITHER_WAY:
        changes = {"norm_epsilon": 1e-13}
        learner, params = make(factory, changes, context_lr=0.0)
        episode = make_episode()
        models.append(learner.adapt(params, episode.support_images, episode.support_labels).model)
    assert relative(*models) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("context_update", ["task", "step"])
def test_explicit_context_follows_the_loss_behind_the_step(context_update):
    episode, rate = make_episode(), 0.7
    options = {"context_update": context_update, "context_lr": rate}
    learner, params = make(cx.learners.cxgrad_explicit, num_steps=2, **options)
    trace = learner.adapt(params, episode.support_images, episode.support_labels).trace

    @jax.jit
    def loss_behind(context, before):
        """The support loss after step 2 (step 1 with the factors before) with the factors of this context."""
        gamma = cxgrad_module.scaling_factors(params["generator"], context)
        gammas = jnp.stack([*before, gamma])
        task = cx.analysis.adapt_with_factors(
            model(), params, episode.support_images, episode.support_labels, gammas, explicit=True
        )
        return cross_entropy(apply_model(model(), task.model, episode.support_images), episode.support_labels)

    start = jnp.zeros(6)
    for step in range(2):
        before = trace["gamma"][:step]
        value, gradient = jax.value_and_grad(loss_behind)(start, before)
        np.testing.assert_allclose(trace["trial_loss"][step], value, rtol=1e-9)
        np.testing.assert_allclose(trace["context"][step], start - rate * gradient, rtol=1e-7, atol=1e-12)
        start = trace["context"][step] if context_update == "task" else start


@pytest.mark.slow
def test_the_explicit_context_is_of_first_order_and_the_implicit_one_lives_on_epsilon():
    episode, norms = make_episode(), {}
    for factory in EITHER_WAY:
        for epsilon in (1e-5, 1e-9):
            changes = {"norm_epsilon": epsilon}
            learner, params = make(factory, changes, num_steps=1)
            context = learner.adapt(params, episode.support_images, episode.support_labels).trace["context"]
            norms[factory.__name__, epsilon] = np.linalg.norm(context)
    assert norms["cxgrad", 1e-9] < 1e-3 * norms["cxgrad", 1e-5]
    assert norms["cxgrad_explicit", 1e-9] == pytest.approx(norms["cxgrad_explicit", 1e-5], rel=0.05)
    assert norms["cxgrad_explicit", 1e-5] > 5 * norms["cxgrad", 1e-5]


def test_at_zero_context_gamma_is_the_same_for_all_tasks():
    learner, params = make(cx.learners.cxgrad, context_lr=0.0)
    gammas = [
        learner.adapt(params, e.support_images, e.support_labels).trace["gamma"] for e in map(make_episode, range(3))
    ]
    np.testing.assert_array_equal(gammas[0], gammas[1])
    np.testing.assert_array_equal(gammas[0], gammas[2])


@pytest.mark.slow
def test_one_step_is_the_same_task_wise_and_step_wise():
    task_wise, params = make(cx.learners.cxgrad, num_steps=1)
    step_wise, _ = make(cx.learners.cxgrad, num_steps=1, context_update="step")
    gradients = [meta_gradient(learner, params, make_episode()) for learner in (task_wise, step_wise)]
    assert relative(*gradients) < CONTEXT_ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("factory", [cx.learners.cxgrad, cx.learners.maml])
def test_remat_changes_nothing_and_first_order_only_the_gradient(factory):
    episode = make_episode()
    results = {}
    for name, changes in {"plain": {}, "remat": {"remat": True}, "first": {"first_order": True}}.items():
        learner, params = make(factory, **changes)
        (loss, _), gradient = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(params, episode)
        results[name] = loss, gradient
    assert relative(results["remat"], results["plain"]) < CONTEXT_ROUNDING
    assert results["first"][0] == pytest.approx(float(results["plain"][0]), rel=1e-12)
    assert relative(results["first"][1], results["plain"][1]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("factory", [cx.learners.cxgrad, cx.learners.maml])
def test_everything_follows_the_dtype_of_the_images(factory):
    episode = make_episode()
    for dtype in (np.float32, np.float64):
        learner, _ = make(factory)
        images = episode.support_images.astype(dtype)
        params = learner.init(jax.random.key(0), images)
        query = {"query_images": images, "query_labels": episode.support_labels}
        loss, _ = learner.loss(params, episode._replace(support_images=images, **query))
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)} == {loss.dtype}
    bytes_ = (255 * episode.support_images).astype(np.uint8)
    params = learner.init(jax.random.key(0), bytes_)
    assert jax.tree.leaves(params)[0].dtype == np.float32
    task = learner.adapt(params, bytes_, episode.support_labels)
    same = learner.adapt(params, bytes_.astype(np.float32) / 255, episode.support_labels)
    assert relative(task.model, same.model) < 1e-6  # compiled, a division by 255 is a product: float32 rounding


def test_labels_choose_what_adapts():
    episode = make_episode()
    learner, params = make(cx.learners.maml, param_labels=lambda path, leaf: "adapted" if "head" in path else "meta")
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), task.model, params["model"])
    assert all(jax.tree.leaves(moved["head"])) and not any(jax.tree.leaves(moved["block_0"]))


@pytest.mark.parametrize(
    ("make_learner", "words"),
    [
        (lambda: make(cx.learners.maml, num_steps=0), "num_steps is 0"),
        (lambda: make(cx.learners.cxgrad, context_update="both"), "context_update is 'both'"),
        (lambda: make(cx.learners.cxgrad, param_labels=lambda path, leaf: "adapted"), "no kernel to scale"),
        (lambda: make(cx.learners.maml, param_labels=lambda path, leaf: "frozen"), "label 'frozen'"),
        (lambda: make(cx.learners.maml, param_labels=lambda path, leaf: "meta"), "no parameter of the model adapts"),
    ],
)
def test_mistakes_get_one_line(make_learner, words):
    with pytest.raises(cx.UserError, match=words) as error:
        learner, params = make_learner()
        learner.loss(params, make_episode())
    assert "\n" not in str(error.value)
