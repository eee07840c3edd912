"""The front door of every learner: what it refuses, and that it says so in one line."""

import functools
import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import WAY, first_params, make_episode

import cxgrad_jax as cx

EPISODE = make_episode()
IMAGES, LABELS = np.asarray(EPISODE.support_images, np.float32), EPISODE.support_labels
every_learner = pytest.mark.parametrize("name", cx.learners.NAMES)


def build(name, way=WAY, **hyper_parameters):
    """The learner on a small backbone, with one inner step where it has any."""
    return getattr(cx.learners, name)(cx.models.Conv4(way, features=4), **hyper_parameters)


def shapes_of(learner, images=IMAGES):
    return jax.eval_shape(learner.init, jax.random.key(0), images)


def refused(words, function, *arguments):
    with pytest.raises(cx.UserError, match=words) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


BAD_IMAGES = {
    "channels first": (IMAGES.transpose(0, 3, 1, 2), r"shape \[6, 3, 16, 16\].*channels last"),
    "grey, channels first": (IMAGES[..., :1].transpose(0, 3, 1, 2), r"shape \[6, 1, 16, 16\].*channels last"),
    "without channels": (IMAGES[..., 0], r"shape \[6, 16, 16\]; expected \[N, H, W, C\]"),
    "one image": (IMAGES[0], r"shape \[16, 16, 3\]; expected \[N, H, W, C\]"),
    "a batch of episodes": (IMAGES[None], r"shape \[1, 6, 16, 16, 3\].*cx.mean_loss"),
    "none": (IMAGES[:0], r"shape \[0, 16, 16, 3\]"),
    "too small": (IMAGES[:, :8, :8], r"8, 8, 3.*(too small|at least 16)"),
    "int64": ((255 * IMAGES).astype(np.int64), "dtype int(32|64); expected uint8 in 0..255 or floats"),
}
BAD_VALUES = {
    "0 to 255 as floats": (255 * IMAGES, "floats from .* to .*; expected 0 to 1"),
    "standardised": ((IMAGES - IMAGES.mean()) / IMAGES.std(), "floats from -"),
    "not a number": (np.where(IMAGES > 0.5, np.nan, IMAGES), "floats from nan"),
}


@every_learner
def test_images_of_another_kind_are_refused_while_tracing(name):
    learner = build(name)
    params = shapes_of(learner)
    adapted = jax.eval_shape(learner.adapt, params, IMAGES, LABELS)
    for images, words in BAD_IMAGES.values():
        labels = np.zeros(images.shape[:1], np.int32)
        refused(words, jax.eval_shape, learner.init, jax.random.key(0), images)
        refused(words, jax.eval_shape, learner.adapt, params, images, labels)
        refused(words, jax.eval_shape, learner.predict, params, adapted, images)
        refused(words, jax.eval_shape, learner.loss, params, cx.Episode(images, labels, images, labels))


def test_a_start_that_cannot_be_drawn_is_refused_by_the_line_alone():
    """It is drawn by a compiled program, and JAX adds words of its own to an exception that passes through one."""
    with pytest.raises(cx.UserError, match="expected .* at least 16") as refusal:
        build("maml").init(jax.random.key(0), IMAGES[:, :8, :8])
    assert not getattr(refusal.value, "__notes__", []) and refusal.value.__suppress_context__


@pytest.mark.parametrize("kind", BAD_VALUES)
def test_values_out_of_range_are_refused_where_they_are_known(kind):
    learner, (images, words) = build("maml"), BAD_VALUES[kind]
    params = first_params(learner, IMAGES)
    adapted = jax.eval_shape(learner.adapt, params, IMAGES, LABELS)
    for known in (images, jnp.asarray(images)):
        refused(words, learner.init, jax.random.key(0), known)
        refused(words, learner.adapt, params, known, LABELS)
        refused(words, learner.predict, params, adapted, known)
        refused(words, learner.loss, params, EPISODE._replace(support_images=known))
    jax.eval_shape(learner.adapt, params, images, LABELS)


BAD_LABELS = {
    "from one": (LABELS + 1, "run from 1 to 3; expected 0 to 2"),
    "of the data set": (LABELS + 64, "run from 64 to 66; expected 0 to 2"),
    "negative": (LABELS - 1, "run from -1 to 1; expected 0 to 2"),
    "too few": (LABELS[:-1], r"shape \[5\]; expected \[6\]"),
    "one-hot": (np.eye(WAY, dtype=np.int32)[LABELS], r"shape \[6, 3\]; expected \[6\]"),
    "floats": (LABELS.astype(np.float32), "dtype float32; expected integers"),
}


@every_learner
def test_labels_of_another_kind_are_refused(name):
    learner = build(name)
    params = shapes_of(learner)
    for labels, words in BAD_LABELS.values():
        refused(f"support labels (run|have) .*{words.split(' ', 1)[1]}", learner.adapt, params, IMAGES, labels)
        wrong = cx.Episode(IMAGES, LABELS, IMAGES, labels)
        refused(f"query labels (run|have) .*{words.split(' ', 1)[1]}", learner.loss, params, wrong)


@pytest.mark.slow_except("-1-maml", "64-proto_net")
@every_learner
@pytest.mark.parametrize("wrong", [-1, WAY, 64])
def test_a_label_that_only_compiled_code_knows_gives_nan(name, wrong):
    learner = build(name)
    params = first_params(learner, IMAGES)

    @jax.jit
    def outcome(support_labels, query_labels):
        logits = learner.predict(params, learner.adapt(params, IMAGES, support_labels), IMAGES)
        loss, metrics = learner.loss(params, cx.Episode(IMAGES, support_labels, IMAGES, query_labels))
        return logits, loss, metrics["accuracy"]

    bad = LABELS.copy()
    bad[-1] = wrong
    assert all(np.isfinite(value).all() for value in outcome(LABELS, LABELS))
    logits, loss, accuracy = outcome(bad, LABELS)
    assert np.isnan(logits).all() and np.isnan(loss) and accuracy == 0
    logits, loss, accuracy = outcome(LABELS, bad)
    assert np.isfinite(logits).all() and np.isnan(loss) and np.isnan(accuracy)


@every_learner
def test_yes_or_no_is_no_word(name):
    factory = getattr(cx.learners, name)
    for keyword, parameter in inspect.signature(factory).parameters.items():
        if isinstance(parameter.default, bool):
            refused(f"^{keyword} is 'no'; expected True or False$", lambda given: build(name, **given), {keyword: "no"})


class Wayless(nn.Module):
    """A classifier that does not say how many classes it has."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", jax.nn.initializers.normal(), (x[0].size, WAY))
        return x.reshape(len(x), -1) @ kernel


def test_a_model_that_does_not_tell_its_classes_is_asked_by_its_output():
    learner = cx.learners.maml(Wayless())
    params = learner.init(jax.random.key(0), IMAGES)
    words = "expected 0 to 2, for the model has 3 classes"
    refused(words, learner.adapt, params, IMAGES, LABELS + 1)
    refused(words, learner.loss, params, EPISODE._replace(query_labels=LABELS + 1))


class Twice(Wayless):
    def __call__(self, x):
        return super().__call__(x), super().__call__(x)


class OfRows(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WAY)(x)


@pytest.mark.parametrize(
    ("model", "found"), [(Twice(), "[6, 3] and [6, 3]"), (OfRows(), "[6, 16, 16, 3]")], ids=["two_outputs", "four_axes"]
)
def test_a_model_that_gives_no_logits_is_refused(model, found):
    words = re.escape(f"gives {found} for 6 images; expected logits [6, way], one row an image")
    refused(words, cx.learners.maml(model).init, jax.random.key(0), IMAGES)


@pytest.mark.slow_except("larger-cxgrad", "grey-maml", "grey-proto_net")
@every_learner
@pytest.mark.parametrize("other", [IMAGES[..., :1], np.zeros((6, 32, 32, 3), np.float32)], ids=["grey", "larger"])
def test_parameters_made_for_other_images_are_refused(name, other):
    learner = build(name)
    params = shapes_of(learner)
    adapted = jax.eval_shape(learner.adapt, params, IMAGES, LABELS)
    if other.shape[-1] == 3 and "head" not in params["model"]:
        return  # an encoder takes images of every size
    words = r"parameter [\w/]+ has shape \[\d+, .*\], but .*images .*need \[\d+, .*\];|a linear layer for"
    refused(words, jax.eval_shape, learner.adapt, params, other, LABELS)
    refused(words, jax.eval_shape, learner.predict, params, adapted, other)


def test_parameters_of_another_learner_or_model_are_refused():
    params = shapes_of(build("maml"))
    words = "have no 'generator'; give those of this learner"
    refused(words, jax.eval_shape, build("cxgrad").adapt, params, IMAGES, LABELS)
    resnet = cx.learners.maml(cx.models.ResNet12(WAY, channels=(2, 2, 2, 2)))
    refused("of another model", jax.eval_shape, resnet.adapt, params, IMAGES, LABELS)


def test_support_and_query_images_have_one_shape():
    learner = build("proto_net")
    larger = np.zeros((6, 32, 32, 3), np.float32)
    refused(
        r"query images have shape \[6, 32, 32, 3\], support images \[6, 16, 16, 3\]",
        learner.loss, shapes_of(learner), cx.Episode(IMAGES, LABELS, larger, LABELS),
    )  # fmt: skip


REFUSED = [
    ("maml", {"num_steps": 0}, "num_steps is 0; expected at least 1"),
    ("maml", {"num_steps": 2.5}, "num_steps is 2.5; expected a whole number, at least 1"),
    ("maml", {"num_steps": True}, "num_steps is True; expected a whole number"),
    ("maml", {"inner_lr": 0.0}, "inner_lr is 0.0; expected a positive number"),
    ("maml", {"inner_lr": float("nan")}, "inner_lr is nan; expected a positive number"),
    ("anil", {"inner_lr": -0.1}, "inner_lr is -0.1; expected a positive number"),
    ("meta_sgd", {"initial_lr": 0}, "initial_lr is 0; expected a positive number"),
    ("alfa", {"initial_decay": -1.0}, "initial_decay is -1.0; expected a number that is not negative"),
    ("cxgrad", {"context_lr": float("inf")}, "context_lr is inf; expected a number that is not negative"),
    ("cxgrad", {"context_dim": 0}, "context_dim is 0; expected at least 1"),
    ("cxgrad_explicit", {"context_update": "both"}, "context_update is 'both'; expected 'task' or 'step'"),
    ("cavia", {"context_dim": -3}, "context_dim is -3; expected at least 1"),
    ("modgrad", {"num_passes": 0}, "num_passes is 0; expected at least 1"),
    ("modgrad", {"num_mix": 0}, "num_mix is 0; expected at least 1"),
    ("maml_plus_plus", {"epoch_iterations": 0}, "epoch_iterations is 0; expected at least 1"),
    ("maml_plus_plus", {"multi_step_epochs": -1}, "multi_step_epochs is -1; expected at least 0"),
    ("l2f", {"epoch_iterations": -5}, "epoch_iterations is -5; expected at least 1"),
    ("l2f", {"first_order_epochs": -1}, "first_order_epochs is -1; expected at least 0"),
    ("matching_net", {"scale": 0.0}, "scale is 0.0; expected a positive number"),
    ("relation_net", {"shot_reduction": "max"}, "shot_reduction is 'max'; expected 'sum' or 'mean'"),
    ("relation_net", {"hidden": 0}, "hidden is 0; expected at least 1"),
    ("r2d2", {"regularisation": 0.0}, "regularisation is 0.0; expected a positive number"),
    ("rfs", {"regularisation": 1e-6}, "regularisation is 1e-06; expected at least 0.0001, below which"),
    ("r2d2", {"initial_scale": -1.0}, "initial_scale is -1.0; expected a positive number"),
    ("metaoptnet", {"head": "knn"}, "head is 'knn'; expected 'ridge' or 'svm'"),
    ("metaoptnet", {"label_smoothing": 1.0}, "label_smoothing is 1.0; expected a number from 0 to below 1"),
    ("baseline_plus_plus", {"classifier": "svm"}, "classifier is 'svm'; expected 'cosine' or 'linear'"),
    ("baseline_plus_plus", {"num_epochs": 0}, "num_epochs is 0; expected at least 1"),
    ("baseline_plus_plus", {"batch_size": 2.5}, "batch_size is 2.5; expected a whole number, at least 1"),
    ("unicorn_maml", {"temperature": 0}, "temperature is 0; expected a positive number"),
]


@pytest.mark.parametrize(("name", "hyper_parameters", "words"), REFUSED)
def test_a_factory_refuses_what_cannot_run(name, hyper_parameters, words):
    refused(words, lambda: build(name, **hyper_parameters))


@every_learner
def test_a_model_is_a_module_and_not_its_class(name):
    refused("model is the class Conv4; expected a flax.linen module", getattr(cx.learners, name), cx.models.Conv4)
    refused("model is int; expected a flax.linen module", getattr(cx.learners, name), 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32])
def test_labels_of_few_bits_mean_what_they_say(dtype):
    """In uint8 there is no 256, and in int8 no 200: way must not be cut to them."""
    way = 256 if dtype == np.uint8 else 200
    labels = jnp.arange(100)
    logits = jnp.zeros((100, way)).at[labels, labels].set(1.0)
    for function in (cx.learners.accuracy, cx.learners.cross_entropy):
        np.testing.assert_array_equal(jax.jit(function)(logits, labels.astype(dtype)), function(logits, labels))
    assert cx.learners.accuracy(jnp.zeros((2, 300)).at[:, 259].set(1.0), jnp.full(2, 3, np.uint8)) == 0
    assert np.isnan(jax.jit(cx.learners.cross_entropy)(logits[:1, :3], np.full(1, 3, dtype)))


def test_other_orders_of_bytes_are_turned():
    learner = build("proto_net")
    params = first_params(learner, IMAGES)
    turned = EPISODE._replace(
        support_images=IMAGES.astype(">f4"), support_labels=LABELS.astype(">i4"),
        query_images=np.asarray(EPISODE.query_images).astype(">f4"), query_labels=EPISODE.query_labels.astype(">i4"),
    )  # fmt: skip
    plain = EPISODE._replace(support_images=IMAGES, query_images=np.asarray(EPISODE.query_images, np.float32))
    assert learner.loss(params, turned)[0] == learner.loss(params, plain)[0]


def test_floats_that_jax_does_not_have_are_refused():
    refused(
        "have dtype float128, which JAX does not have", build("proto_net").init, jax.random.key(0), IMAGES.astype("g")
    )


def test_a_network_without_parameters_is_refused():
    class Flat(nn.Module):
        num_classes: int = WAY

        def embed(self, images):
            return images.reshape(len(images), -1)

        @nn.compact
        def __call__(self, images):
            return nn.Dense(self.num_classes, name="head")(self.embed(images))

    refused("embed of Flat has no parameters", cx.learners.proto_net(Flat()).init, jax.random.key(0), IMAGES)


def test_a_learner_that_draws_does_so_whatever_the_default_generator_is():
    learner = build("baseline_plus_plus", num_epochs=1)
    params = first_params(learner, IMAGES)
    plain = learner.adapt(params, IMAGES, LABELS)
    for other in (jax.default_prng_impl("rbg"), jax.threefry_partitionable(False)):
        with other:
            jax.tree.map(np.testing.assert_array_equal, plain, learner.adapt(params, IMAGES, LABELS))


class Wrong(nn.Module):
    """A model with something that a learner cannot give it."""

    what: str
    num_classes: int = WAY

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        if self.what == "slash":
            x = nn.WeightNorm(nn.Dense(4))(x)
        if self.what == "collection":
            self.variable("cache", "n", lambda: 0)
        if self.what == "dropout":
            x = nn.Dropout(0.5, deterministic=False)(x)
        if self.what == "layer":
            x = nn.BatchNorm()(x)
        logits = nn.Dense(2 if self.what == "way" else WAY)(x)
        return (logits, x) if self.what == "tuple" else logits


class Trained(nn.Module):
    num_classes: int = WAY

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(WAY)(x.reshape(len(x), -1))


class TrainedByKeyword(Trained):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(WAY)(x.reshape(len(x), -1))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Wrong("slash"), "Wrong has a parameter called 'Dense_1/kernel/scale'; a learner takes names without a slash"),
        (Wrong("collection"), "Wrong keeps variables in the collection 'cache'; a learner passes parameters"),
        (Wrong("way"), "Wrong has num_classes=3 and gives 2 logits an image"),
        (Wrong("tuple"), r"gives \[6, 3\] and \[6, 4\] for 6 images; expected logits \[6, way\]"),
        (Trained(), "__call__ of Trained needs train; give it a default, for a learner passes images alone"),
        (TrainedByKeyword(), "__call__ of TrainedByKeyword needs train; give it a default"),
        (Wrong("layer"), "a layer of Wrong needs use_running_average; give it where the layer is made"),
    ],
    ids=["slash", "collection", "way", "tuple", "argument", "keyword", "layer"],
)
def test_a_model_that_needs_what_a_learner_does_not_give_is_refused(model, words):
    refused(words, cx.learners.maml(model).init, jax.random.key(0), IMAGES)


def test_a_model_that_asks_for_random_numbers_is_refused():
    learner = cx.learners.maml(Wrong("dropout"))
    params = learner.init(jax.random.key(0), IMAGES)
    words = r'Wrong asks for random numbers \(Dropout_0 needs PRNG for "dropout"\).*deterministic=True'
    refused(words, learner.adapt, params, IMAGES, LABELS)


def test_an_inner_loop_of_the_callers_own_is_checked():
    def adapt(params, images, labels):
        return {"model": params["model"]}

    model = cx.models.Conv4(WAY, features=4)
    for changed, words in (
        ({"query_statistics": "suport"}, "query_statistics is 'suport'; expected 'query' or 'support'"),
        ({"query_statistics": "running"}, "query_statistics is 'running'; expected"),
        ({"temperature": 0}, "temperature is 0; expected a positive number"),
    ):
        refused(words, functools.partial(cx.learners.gradient_based, **changed), model, adapt)
    learner = cx.learners.gradient_based(model, adapt, query_statistics="support")
    words = "adapted is of type dict; expected what adapt returns"
    refused(words, jax.eval_shape, learner.adapt, shapes_of(learner), IMAGES, LABELS)


def test_the_loss_and_the_accuracy_take_half_precision_and_refuse_other_shapes():
    logits = jnp.asarray([[2.0, 0, 0], [0, 0, 2.0], [0, 2.0, 0]], jnp.bfloat16)
    loss, accuracy = cx.learners.cross_entropy(logits, LABELS[:3]), cx.learners.accuracy(logits, jnp.asarray([0, 1, 2]))
    assert loss.dtype == accuracy.dtype == jnp.float32 and float(accuracy) == pytest.approx(1 / 3, rel=1e-6)
    for function in (cx.learners.cross_entropy, cx.learners.accuracy):
        refused(r"labels have shape \(2,\) and logits \(3, 3\)", function, logits, LABELS[:2])
