"""Which parameters adapt: by the class of the module where flax tells it, by names where it does not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import first_params

import cxgrad_jax as cx
from cxgrad_jax.learners import default_labels, describe, module_classes, split_by_label
from cxgrad_jax.learners._labels import labels_by_path
from cxgrad_jax.learners._modules import num_outputs

IMAGES = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
LABELS = np.arange(3)


class Named(nn.Module):
    """A residual network whose names mislead."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="bn1")(nn.Conv(4, (3, 3), name="conv1")(x)))
        shortcut = nn.Conv(6, (1, 1), name="downsample")(x)
        x = nn.GroupNorm(num_groups=2, use_scale=False, name="second")(nn.Conv(6, (3, 3), name="conv2")(x))
        x = nn.Dense(5, name="norm_projection")(jnp.mean(x + shortcut, axis=(1, 2)))
        return nn.Dense(self.num_classes, name="classifier")(x * self.param("norm_of_all", nn.initializers.ones, ()))


EXPECTED = {
    "bn1/scale": "meta", "bn1/bias": "meta", "second/bias": "meta",
    "conv1/kernel": "scaled", "conv1/bias": "adapted", "conv2/kernel": "scaled", "conv2/bias": "adapted",
    "downsample/kernel": "adapted", "downsample/bias": "adapted",
    "norm_projection/kernel": "adapted", "norm_projection/bias": "adapted",
    "classifier/kernel": "adapted", "classifier/bias": "adapted", "norm_of_all": "adapted",
}  # fmt: skip


def named_params():
    return Named().init(jax.random.key(0), IMAGES)["params"]


def test_the_module_s_class_decides():
    classes = module_classes(Named(), IMAGES)
    assert classes["bn1"] is nn.BatchNorm and classes["norm_projection"] is nn.Dense and classes[""] is Named
    flat = cx.learners.by_path(named_params())
    assert labels_by_path(flat, default_labels, classes) == EXPECTED
    assert num_outputs(Named(), (255 * IMAGES).astype(np.uint8)) == 3


def test_learners_decide_by_the_class():
    params = {"model": named_params()}
    adapted = jax.jit(cx.learners.maml(Named(), inner_lr=0.1, num_steps=1).adapt)(params, IMAGES, LABELS)
    assert adapted.trace["fast"].keys() == {path for path, label in EXPECTED.items() if label != "meta"}
    learner = cx.learners.cxgrad(Named(), context_dim=3, num_steps=1)
    params = first_params(learner, IMAGES)
    adapted = jax.jit(learner.adapt)(params, IMAGES, LABELS)
    assert adapted.trace["gamma"].shape == (1, 2)  # conv1 and conv2
    shortcut = params["model"]["downsample"]["kernel"]
    np.testing.assert_array_equal(adapted.trace["fast"]["downsample/kernel"][0], shortcut)


@pytest.mark.parametrize("model", [cx.models.Conv4(3, use_bias=True), cx.models.ResNet12(3, channels=(2, 2, 4, 4))])
def test_the_models_here_are_labelled_alike_with_and_without_classes(model):
    params = jax.eval_shape(model.init, jax.random.key(0), IMAGES)["params"]
    by_name, by_class = (
        split_by_label(params, default_labels),
        split_by_label(params, default_labels, module_classes(model, IMAGES)),
    )
    assert [list(part) for part in by_name] == [list(part) for part in by_class]


def test_a_label_function_is_told_the_class_if_it_asks():
    told = {}

    def labels(path, leaf, module):
        told[path] = module
        return "adapted"

    jax.eval_shape(cx.learners.maml(Named(), param_labels=labels).adapt, {"model": named_params()}, IMAGES, LABELS)
    assert told["bn1/scale"] is nn.BatchNorm and told["norm_of_all"] is Named


class Unhashable(Named):
    """A model with a field that has no hash."""

    sizes: list = None  # pyright: ignore


def test_a_model_without_a_hash_works():
    assert module_classes(Unhashable(sizes=[1, 2]), IMAGES)["bn1"] is nn.BatchNorm


def test_describe_is_a_table_of_parts():
    learner = cx.learners.cxgrad(Named(), context_dim=3)
    params = jax.eval_shape(learner.init, jax.random.key(0), IMAGES)
    rows = {row.split()[0]: row for row in describe(learner, params).splitlines()}
    assert rows["model/bn1/scale"].endswith("outer loop only") and "BatchNorm" in rows["model/bn1/scale"]
    assert rows["model/downsample/kernel"].endswith("adapted") and "[1, 1, 4, 6]" in rows["model/downsample/kernel"]
    assert rows["model/conv1/kernel"].endswith("scaled by CxGrad")
    assert rows["generator/hidden/kernel"].endswith("outer loop only")
    assert len(rows) == 1 + len(jax.tree.leaves(params))
    for row in describe(Named(), params["model"]).splitlines()[1:]:
        assert row.split() == rows[f"model/{row.split()[0]}"].removeprefix("model/").split()


@pytest.mark.parametrize("name", cx.learners.NAMES)
def test_describe_tells_what_adapts(name):
    inductive = {"query_statistics": "support"} if name == "metal" else {}  # its adapt needs the query images otherwise
    learner = getattr(cx.learners, name)(cx.models.Conv4(3, features=4), **inductive)
    params = jax.eval_shape(learner.init, jax.random.key(0), IMAGES)
    adapted = jax.eval_shape(learner.adapt, params, IMAGES, LABELS)
    fast = adapted.trace["fast"] if isinstance(adapted, cx.learners.Adapted) else {}
    told = [row.split()[0] for row in describe(learner, params).splitlines()[1:] if "outer loop" not in row]
    assert set(told) == {f"model/{path}" for path in fast}


def test_describe_sees_through_jit():
    learner = cx.learners.alfa(cx.models.Conv4(3, features=4))
    params = jax.eval_shape(learner.init, jax.random.key(0), IMAGES)
    jitted = learner._replace(adapt=jax.jit(learner.adapt))
    assert describe(jitted, params) == describe(learner, params)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learner_or_model": 3}, "learner_or_model is 3; expected a learner or a flax.linen module"),
        ({"learner_or_model": cx.models.Conv4}, "learner_or_model is the class Conv4"),
        ({"params": 3}, "params is of type int; expected a dict"),
        ({"params": "a"}, "params holds a str; expected meta-parameters"),
        ({"params": {}}, "params has no array"),
        ({"images": "a"}, r"images have shape \[\]; expected \[N, H, W, C\]"),
        ({"param_labels": 3}, "param_labels is 3; expected a function"),
    ],
)
def test_what_cannot_be_described_is_refused(changed, message):
    learner = cx.learners.maml(Named())
    params = learner.init(jax.random.key(0), IMAGES)
    with pytest.raises(cx.UserError, match=message):
        describe(**({"learner_or_model": learner, "params": params} | changed))


@pytest.mark.parametrize("function", [lambda path: "adapted", max])
def test_a_label_function_of_too_few_arguments_is_refused(function):
    params = first_params(cx.learners.maml(Named()), IMAGES)
    with pytest.raises(cx.UserError, match=r"param_labels takes [01] arguments; expected a function of path and value"):
        cx.learners.maml(Named(), param_labels=function).adapt(params, IMAGES, LABELS)
