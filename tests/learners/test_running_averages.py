"""Running averages: what moves them, what a prediction by them sees, and the optimiser that leaves them alone."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import WAY, first_params, make_episode, relative
from small_networks import EPISODE, NETWORKS, OTHERS, WITH_RUNNING_AVERAGES, build

import cxgrad_jax as cx
from cxgrad_jax.learners import apply_in_training, apply_model, batch_statistics, initial_statistics
from cxgrad_jax.models import _fused

pytestmark = pytest.mark.usefixtures("double_precision")

running_learner = pytest.mark.parametrize("name", WITH_RUNNING_AVERAGES)
JOINT = ("matching_net", "meta_baseline", "proto_net", "r2d2")
every_network = pytest.mark.parametrize("network", NETWORKS)


def moved_params(learner, episodes=(EPISODE,), dtype: Any = np.float64):
    """Meta-parameters whose averages have seen some episodes; nothing else moves."""
    params = first_params(learner, EPISODE.support_images.astype(dtype))
    for episode in episodes:
        gradient = jax.jit(jax.grad(lambda p, e: learner.loss(p, e)[0]))(params, episode)
        step = jax.tree.map(lambda old, g: old - g, params["statistics"], gradient["statistics"])
        params = {**params, "statistics": step}
    return params


@pytest.mark.slow_except("False-conv4-proto_net", "True-flax-proto_net")
@running_learner
@every_network
@pytest.mark.parametrize("joint", [False, True])
def test_a_prediction_depends_on_no_other_image(name, network, joint):
    if joint and name not in JOINT:
        return
    learner = build(name, network, "running", **({"joint_normalisation": True} if joint else {}))
    params, images = moved_params(learner), EPISODE.query_images
    adapted = jax.jit(learner.adapt)(params, EPISODE.support_images, EPISODE.support_labels)
    predict = jax.jit(lambda images: learner.predict(params, adapted, images))
    together = predict(images)
    np.testing.assert_array_equal(predict(np.concatenate([images[:1], OTHERS[1:]]))[0], together[0])
    assert relative(predict(images[:1])[0], together[0]) < 1e-12


def test_in_float32_another_batch_size_changes_rounding_only():
    learner = build("proto_net", "conv4", "running")
    images = EPISODE.query_images.astype(np.float32)
    params = moved_params(learner, dtype=np.float32)
    adapted = learner.adapt(params, EPISODE.support_images.astype(np.float32), EPISODE.support_labels)
    predict = jax.jit(lambda images: learner.predict(params, adapted, images))
    assert relative(predict(images[:1])[0], predict(images)[0]) < 1e-6


@pytest.mark.slow_except("conv4", "flax")
@every_network
def test_one_pass_moves_them_by_the_rule_of_each_module(network):
    model, images = NETWORKS[network], EPISODE.support_images
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]

    @jax.jit
    def of_one_pass(params):
        start, batch = initial_statistics(model, params, images), batch_statistics(model, params, images)
        return batch, apply_in_training(model, params, images, statistics=start), apply_model(model, params, images)

    batch, (output, moved), plain = of_one_pass(params)
    np.testing.assert_array_equal(output, plain)
    if network == "flax":
        assert relative(moved["norm_0"]["mean"], 0.5 * batch["norm_0"]["mean"]) < 1e-12
        assert relative(moved["norm_0"]["var"], 0.5 + 0.5 * batch["norm_0"]["var"]) < 1e-12
        assert relative(moved["norm_1"]["var"], 0.99 + 0.01 * batch["norm_1"]["var"]) < 1e-12
        return
    block, norm = "block_0", "norm" if network == "conv4" else "norm_0"
    count = images.shape[0] * images.shape[1] * images.shape[2]
    assert relative(moved[block][norm]["mean"], 0.1 * batch[block][norm]["mean"]) < 1e-12
    unbiased = batch[block][norm]["var"] * count / (count - 1)
    assert relative(moved[block][norm]["var"], 0.9 + 0.1 * unbiased) < 1e-12


def test_the_fused_operation_moves_them_alike(monkeypatch):
    model, images = NETWORKS["conv4"], EPISODE.support_images
    params = model.init(jax.random.key(0), images)["params"]
    start = initial_statistics(model, params, images)
    whole = apply_in_training(model, params, images, statistics=start)[1]
    monkeypatch.setattr(_fused, "PART_BYTES", 1000)
    assert relative(apply_in_training(model, params, images, statistics=start)[1], whole) < 1e-11


class Averaging(nn.Module):
    """A model that asks for running averages itself, as a model at test does."""

    num_classes: int = WAY

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x))
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


def test_the_learner_says_what_normalises_and_not_the_flag_of_a_flax_module():
    images, learner = EPISODE.support_images, cx.learners.maml(Averaging(), num_steps=1)
    params = learner.init(jax.random.key(0), images)["model"]
    found = batch_statistics(Averaging(), params, images)
    ours = apply_model(Averaging(), params, images)
    theirs = Averaging().apply({"params": params, "batch_stats": found}, images)
    assert relative(ours, theirs) < 1e-12


@pytest.mark.slow_except("proto_net")
@running_learner
def test_the_loss_is_that_of_a_training_pass_and_the_averages_add_nothing(name):
    learner, plain = build(name, "conv4", "running"), build(name, "conv4", "query")
    params = first_params(learner, EPISODE.support_images)
    ours, theirs = (jax.jit(jax.value_and_grad(each.loss, has_aux=True)) for each in (learner, plain))
    (loss, metrics), gradient = ours(params, EPISODE)
    without = {key: value for key, value in params.items() if key != "statistics"}
    (expected, expected_metrics), expected_gradient = theirs(without, EPISODE)
    assert relative(loss, expected) < 1e-13
    assert float(metrics["accuracy"]) == float(expected_metrics["accuracy"])
    expected_gradient.pop("shift", None)  # of R2-D2: rounding, for the cross-entropy does not see it
    assert relative({key: gradient[key] for key in expected_gradient}, expected_gradient) < 1e-10
    assert set(metrics) == set(expected_metrics)


@pytest.mark.slow_except("mean")
@pytest.mark.parametrize("task_reduction", ["mean", "sum"])
def test_fit_and_a_training_run_move_them_to_the_mean_over_tasks(task_reduction):
    from jax.sharding import PartitionSpec as P

    from cxgrad_jax import fitting, parallel

    learner = build("proto_net", "flax", "running")
    episodes = [EPISODE, make_episode(1)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *episodes)
    optimiser = optax.chain(optax.clip_by_global_norm(1e-3), optax.adamw(0.1, weight_decay=0.5))
    state = fitting.init_state(learner, optimiser, 0, EPISODE.support_images[:2])
    start = jax.tree.map(np.asarray, state.params)
    mesh = parallel.task_mesh(2 if jax.device_count() > 1 else 1)
    program = fitting.train_program(
        learner.loss, optimiser, lambda source, *_: source, mesh, P(parallel.TASK_AXIS), 1,
        task_reduction=task_reduction,
    )  # fmt: skip
    placed = parallel.put(mesh, batch, P(parallel.TASK_AXIS))
    state, metrics = program(parallel.put(mesh, state), placed)

    def moved(episode):
        averages, encode = start["statistics"]["model"], "embed"
        for images in (episode.support_images, episode.query_images):
            _, averages = apply_in_training(NETWORKS["flax"], start["model"], images, encode, statistics=averages)
        return averages

    expected = jax.tree.map(lambda *each: sum(each) / len(each), *map(moved, episodes))
    assert relative(state.params["statistics"]["model"], expected) < 1e-12
    gradient = jax.grad(lambda p: cx.mean_loss(learner)(p, batch)[0])(start)
    factor = len(episodes) if task_reduction == "sum" else 1
    norm = factor * optax.tree.norm({"model": gradient["model"]})
    assert float(metrics["gradient_norm"][0]) == pytest.approx(float(norm), rel=1e-10)
    assert "statistics" not in str(jax.tree_util.tree_structure(state.opt_state))


def test_without_averages_the_optimiser_is_the_one_given():
    params: Any = {"model": jnp.ones(3)}
    optimiser = optax.adam(0.1)
    wrapped = cx.learners.with_running_averages(optimiser)
    assert jax.tree.structure(wrapped.init(params)) == jax.tree.structure(optimiser.init(params))
    ours, theirs = (jax.tree.leaves(o.update(params, o.init(params), params)[0]) for o in (wrapped, optimiser))
    np.testing.assert_array_equal(ours, theirs)


def test_parameters_without_averages_are_refused_in_one_line():
    params = build("proto_net", "conv4", "query").init(jax.random.key(0), EPISODE.support_images)
    learner = build("proto_net", "conv4", "running")
    with pytest.raises(cx.UserError, match="the parameters have no running averages; give those") as error:
        learner.adapt(params, EPISODE.support_images, EPISODE.support_labels)
    assert "\n" not in str(error.value)


def test_parameters_with_averages_serve_the_other_modes():
    params = moved_params(build("proto_net", "conv4", "running"))
    for mode in ("query", "support"):
        learner = build("proto_net", "conv4", mode)
        adapted = learner.adapt(params, EPISODE.support_images, EPISODE.support_labels)
        assert np.isfinite(learner.predict(params, adapted, EPISODE.query_images)).all()


@pytest.mark.slow
@running_learner
def test_without_batch_normalisation_there_are_none(name):
    model = cx.models.Conv4(WAY, 4, norm="layer")
    learners = [getattr(cx.learners, name)(model, query_statistics=mode) for mode in ("running", "query")]
    params = learners[0].init(jax.random.key(0), EPISODE.support_images)
    assert "statistics" not in params
    ours, theirs = (each.predict(params, each.adapt(params, *EPISODE[:2]), EPISODE.query_images) for each in learners)
    np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(learners[0].loss(params, EPISODE)[0])


def test_they_are_saved_and_loaded(tmp_path):
    learner = build("relation_net", "conv4", "running")
    params = moved_params(learner)
    cx.save(tmp_path / "x.safetensors", learner, params)
    again, read = cx.load(tmp_path / "x.safetensors")
    assert again.spec == learner.spec
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), params, read))


def test_a_description_tells_them_from_parameters():
    learner = build("proto_net", "conv4", "running")
    params = learner.init(jax.random.key(0), EPISODE.support_images)
    lines = cx.learners.describe(learner, params, images=EPISODE.support_images).splitlines()
    assert any(line.startswith("statistics/model/block_0/norm/mean") and "running average" in line for line in lines)
