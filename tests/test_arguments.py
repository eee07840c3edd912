"""An argument of another kind is refused in one line, before anything is computed."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import cxgrad_jax

cx: Any = cxgrad_jax  # the types of most arguments here are wrong on purpose
STORE = cx.data.from_arrays(np.zeros((12, 16, 16, 1), np.uint8), np.arange(12) // 4)
FLOATS = STORE._replace(images=np.linspace(0, 1, STORE.images.size, dtype=np.float32).reshape(STORE.images.shape))
SAMPLER = cx.sampler(STORE, way=3, shot=1, query=2)
EPISODE = SAMPLER(0)
BATCH = SAMPLER.batch([0, 1])
MODEL = cx.models.Conv4(num_classes=3, features=2)
LEARNER: Any = cx.learners.proto_net(MODEL)
NARROW = cx.learners.maml(cx.models.Conv4(num_classes=2, features=2))
ADAM: Any = optax.adam(1e-3)


class NoHead(nn.Module):
    def setup(self):
        self.last = nn.Dense(3)

    def embed(self, images):
        return images.reshape(len(images), -1)

    def __call__(self, images):
        return self.last(self.embed(images))


def fit(learner=LEARNER, sampler=SAMPLER, optimiser=ADAM, **keywords):
    return cx.fit(learner, sampler, optimiser, **{"iterations": 1, "tasks": 1, "progress": False, **keywords})


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: fit(MODEL), "learner is of type Conv4; expected a learner, such as"),
        (lambda: fit(cx.learners.maml), "learner is of type function; expected a learner"),
        (lambda: fit(sampler=STORE), "sampler is of type ImageStore; expected a sampler, such as cx.sampler(store,"),
        (lambda: fit(optimiser=1e-3), "optimiser is 0.001; expected an Optax optimiser, such as optax.adam"),
        (lambda: fit(optimiser=optax.constant_schedule(1)), "optimiser is of type function; expected an Optax"),
        (lambda: fit(iterations=2.0), "iterations is 2.0; expected a whole number, at least 1"),
        (lambda: fit(tasks=True), "tasks is True; expected a whole number, at least 1"),
        (lambda: fit(seed=-1), "seed is -1; expected a whole number, 0 to 4294967295"),
        (lambda: fit(seed=2**32), "seed is 4294967296; expected a whole number"),
        (lambda: fit(callback=3), "callback is 3; expected a function (iteration, metrics), or None"),
        (
            lambda: fit(params={"model": np.ones(2, int)}),
            "params['model'] has dtype int64; expected an array of floats",
        ),
        (lambda: fit(params={"model": "a"}), "params holds a str; expected meta-parameters, such as learner.init("),
        (lambda: fit(params={"model": {}}), "params has no array and is of type dict; expected meta-parameters"),
        (lambda: cx.evaluate(LEARNER, None, SAMPLER), "params has no array and is of type NoneType; expected"),
        (
            lambda: cx.evaluate(LEARNER, (LEARNER, {"a": np.ones(2)}), SAMPLER),
            "cx.load gives two things: learner, params = cx.load(...)",
        ),
        (lambda: LEARNER.adapt([1], STORE.images, STORE.images), "support labels have shape"),
        (
            lambda: LEARNER.adapt([1], EPISODE.support_images, EPISODE.support_labels),
            "params is of type list; expected a",
        ),
        (lambda: LEARNER.loss(None, EPISODE), "params has no array and is of type NoneType; expected meta-parameters"),
        (lambda: LEARNER.predict({"a": 1.0}, None, STORE.images), "adapted is of type NoneType; expected what adapt"),
        (lambda: cx.save(3, None, {}), "path is 3; expected a path"),
        (
            lambda: cx.save("~nobody-here/a", None, {}),
            "path is '~nobody-here/a', whose home folder is not known; give a",
        ),
        (lambda: cx.load(None), "name_or_path is None; expected a path"),
        (lambda: cx.load(""), "name_or_path is empty; expected a path"),
        (lambda: cx.save("x", None, [1]), "params is of type list; expected a nested dict of arrays"),
        (
            lambda: cx.save("x", None, {"a": (np.ones(2),)}),
            "the parameter a/[0] is not in a nested dict whose keys are strings without a slash",
        ),
        (lambda: cx.save("x", None, {"a": None}), "the parameter a is of type NoneType; expected an array of numbers"),
        (lambda: cx.save("x", None, {"a/b": np.ones(2)}), "the parameter a/b is not in a nested dict whose keys"),
        (lambda: cx.save("x", None, {"a": jax.random.key(0)}), "the parameter a is a key of JAX; expected an array"),
        (
            lambda: cx.save("x", None, {"a": jax.numpy.ones(2, "bfloat16")}),
            "the parameter a has dtype bfloat16; expected an array of numbers; convert it to float32",
        ),
        (
            lambda: cx.export("x", LEARNER, {"a": [np.ones(2)]}, SAMPLER.batch([0])),
            "the parameter a/[0] is not in a nested dict",
        ),
        (lambda: cx.load("classifier_baseline_glyphs", 3), "learner is 3; expected a learner"),
        (
            lambda: cx.learners.accuracy(np.eye(3), np.zeros((3, 1), int)),
            "labels have shape (3, 1) and logits (3, 3); expected [N] and [N, way]",
        ),
        (
            lambda: cx.analysis.permuted_logits(LEARNER, {}, EPISODE, 2),
            "way is 2, but the support labels of the episode are [0, 1, 2]; expected 0 to 1",
        ),
        (lambda: cx.analysis.permutations(2.5), "way is 2.5; expected a whole number, at least 1"),
        (lambda: SAMPLER.class_names(-1), "episode -1; expected 0 to 2147483647"),
        (lambda: SAMPLER.class_names(1.5), "indices is [1.5]; expected a sequence of whole numbers"),
        (
            lambda: cx.data.from_arrays(np.zeros((2, 16, 16, 1), np.uint8), [0, 1], class_names={0: "a", 1: "b"}),
            "class_names is {0: 'a', 1: 'b'}; expected a list with one name for each distinct label",
        ),
        (
            lambda: cx.analysis.calibration(np.zeros((2, 3, 2)), np.array([0, 1, -1])),
            "labels have dtype int64 and run from -1 to 1; expected whole numbers, 0 to 1",
        ),
        (lambda: cx.mean_loss(LEARNER)({}, None), "episodes is of type NoneType; give a batch of episodes, such as"),
        (
            lambda: cx.mean_loss(LEARNER)({}, BATCH._replace(support_images=BATCH.support_images[:1])),
            "support_images have shape [1, 3, 16, 16, 1], and support_labels [2, 3]; expected as many tasks",
        ),
        (lambda: cx.learners.maml(MODEL, first_order="no"), "first_order is 'no'; expected True or False"),
        (
            lambda: cx.learners.anil(NoHead()).init(jax.random.key(0), EPISODE.support_images),
            "NoHead has no layer named head, the only one that anil adapts",
        ),
        (lambda: cx.load_run(3), "workdir is 3; expected a path"),
        (lambda: cx.load_exported(3), "path is 3; expected a path"),
        (lambda: cx.export(3, LEARNER, {}, SAMPLER.batch([0])), "path is 3; expected a path"),
        (lambda: cx.photos.fit(3), "folder is 3; expected a path"),
        (lambda: cx.photos.load(3), "path is 3; expected a path"),
        (lambda: cx.learners.merge({"a/b": 2}, {"a": 1}), "a/b lies inside a, and both are given as parameters"),
        (
            lambda: cx.learners.gradient_based(MODEL, None),
            "adapt is None; expected a function (params, support_images,",
        ),
        (
            lambda: cx.learners.gradient_based(MODEL, print, lambda *_: None).init(jax.random.key(0), STORE.images),
            "init_extra returned NoneType; expected a dict of meta-parameters by name",
        ),
        (lambda: fit(NARROW), "way is 3, but the learner's model has 2 classes; make"),
        (
            lambda: cx.evaluate(NARROW, {"a": 1.0}, SAMPLER),
            "make the model with num_classes=3, or the sampler with way=2",
        ),
        (lambda: cx.evaluate({}, LEARNER, SAMPLER), "learner is of type dict; expected a learner"),
        (lambda: cx.evaluate(LEARNER, {"a": 1.0}, None), "sampler is None; expected a sampler"),
        (lambda: cx.evaluate_by_part({}, LEARNER, SAMPLER), "learner is of type dict; expected a learner"),
        (lambda: cx.evaluate_permutations(LEARNER, {}, STORE), "sampler is of type ImageStore; expected a sampler"),
        (lambda: cx.mean_loss(MODEL), "learner is of type Conv4; expected a learner"),
        (lambda: cx.save("never_written", {}, LEARNER), "learner is of type dict; expected a learner"),
        (lambda: cx.export("never_written", MODEL, {}, SAMPLER.batch([0])), "learner is of type Conv4"),
        (lambda: cx.export("never_written", LEARNER, {}, SAMPLER.batch([0]), 0.1), "optimiser is 0.1; expected an"),
        (lambda: LEARNER.loss({}, tuple(EPISODE)), "episode is of type tuple; expected an Episode, such as sampler(0)"),
        (
            lambda: NARROW.predict({"a": 1.0}, STORE.images, STORE.images),
            "adapted is of type ndarray; expected what adapt returns",
        ),
        (lambda: cx.learners.maml(MODEL, param_labels="head"), "param_labels is 'head'; expected a function of path"),
        (lambda: cx.analysis.cka(MODEL, {}, EPISODE), "learner is of type Conv4; expected a learner"),
        (lambda: cx.analysis.logits_by_step(LEARNER, {}, tuple(EPISODE)), "episode is of type tuple; expected an"),
        (lambda: cx.analysis.permuted_logits(MODEL, {}, EPISODE, 3), "learner is of type Conv4; expected a learner"),
        (lambda: cx.analysis.landscape(LEARNER, {}, EPISODE, ()), "rates is (); expected one number or more"),
        (lambda: cx.analysis.landscape(LEARNER, {}, EPISODE, 0.1), "rates is 0.1; expected one number or more"),
        (lambda: cx.analysis.calibration(np.zeros((2, 6, 3)), np.zeros(5)), "shape [2, 6, 3] and labels [5]; expected"),
        (lambda: cx.analysis.calibration(np.zeros((2, 6, 3)), np.zeros(6), 0), "bins is 0; expected a whole number"),
        (lambda: cx.analysis.linear_cka(np.zeros((5, 3)), np.zeros((4, 3))), "have shapes [5, 3] and [4, 3]; expected"),
        (lambda: cx.photos.backbone_of_learner(MODEL, {}), "learner is of type Conv4; expected a learner"),
        (lambda: cx.data.with_rotations(STORE.images), "store is of type ndarray; expected an image store"),
        (
            lambda: cx.data.with_rotations(STORE._replace(images=STORE.images[:, 1:])),
            "images are 15x16; expected square",
        ),
        (lambda: cx.sampler(STORE.images), "store is of type ndarray; expected an image store, such as"),
        (lambda: cx.sampler(cx.data.ImageStore), "store is the class ImageStore; expected an image store"),
        (
            lambda: cx.sampler(FLOATS._replace(images=255 * FLOATS.images)),
            "values from 0 to 255; expected float values in",
        ),
        (lambda: cx.sampler(FLOATS._replace(images=np.nan * FLOATS.images)), "images hold NaN; expected finite values"),
        (
            lambda: cx.sampler(STORE._replace(offsets=np.array([0, 4, 8, 13]))),
            "offsets do not divide 12 images among 3 classes; expected 4 rising numbers, from 0 to 12",
        ),
        (
            lambda: cx.sampler(STORE._replace(offsets=np.array([0, 4, 4, 12]))),
            "offsets do not divide 12 images among 3",
        ),
        (lambda: cx.sampler(STORE._replace(class_names=("a", "b"))), "offsets do not divide 12 images among 2 classes"),
        (lambda: cx.sampler(STORE, seed=0.5), "seed is 0.5; expected a whole number, 0 to 4294967295"),
        (lambda: cx.data.split_classes(STORE, seed=1.5), "seed is 1.5; expected a whole number, at least 0"),
        (lambda: LEARNER.init(0, STORE.images), "key is 0; expected a key of JAX, such as jax.random.key(0)"),
        (lambda: LEARNER.init(jax.random.split(jax.random.key(0)), STORE.images), "key has shape [2] and dtype key<"),
        (
            lambda: LEARNER.init(np.zeros(3, np.uint32), STORE.images),
            "key has shape [3] and dtype uint32; expected",
        ),
        (
            lambda: cx.interop.from_official(None, "maml"),
            "arrays is of type NoneType; expected arrays by",
        ),
        (lambda: cx.interop.to_official((1, 2), "maml"), "params is of type tuple; expected a nested dict of arrays"),
        (
            lambda: cx.interop.from_official({}, ["maml"]),
            "learner ['maml'] has no official format here; expected",
        ),
        (lambda: LEARNER.init(np.zeros(2), STORE.images), "key has shape [2] and dtype float64; expected a key of JAX"),
        (
            lambda: LEARNER.init(jax.random.key(0), [STORE.images[0], STORE.images[0, 1:]]),
            "images are of several shapes [15, 16, 1] and [16, 16, 1]; expected one array, or arrays of one shape",
        ),
        (
            lambda: cx.data.from_arrays([STORE.images[0], STORE.images[0, 1:]], [0, 1]),
            "images are of several shapes [15, 16, 1] and [16, 16, 1]; expected one array, or arrays of one shape",
        ),
        (lambda: cx.data.from_arrays(STORE.images, [[0], [1, 2]]), "labels are of several shapes; expected one array"),
        (lambda: cx.data.load(None, "train"), "name is None; expected the name of a data set, such as 'glyphs'"),
        (lambda: cx.data.load(["glyphs"], "train"), "name is ['glyphs']; expected the name of a data set"),
        (lambda: cx.data.load("glyphs", "train", image_size="big"), "image_size is 'big'; expected a whole number"),
        (lambda: cx.data.prepare(None), "name is None; expected the name of a data set, such as 'glyphs'"),
        (lambda: cx.data.prepare("glyphs", image_size=8.5), "image_size is 8.5; expected a whole number, 1 to 1024"),
        (lambda: cx.save("never_written", None, {"a": np.ones(2)}, image_size=0), "image_size is 0; expected a whole"),
    ],
)
def test_another_kind_of_argument_is_refused_in_one_line(call, line):
    with pytest.raises(cx.UserError) as error:
        call()
    assert line in str(error.value) and "\n" not in str(error.value)


def test_one_archive_may_be_given_alone(tmp_path):
    with pytest.raises(cx.UserError, match=r"^no\.tar\.gz does not exist: cifar_fs needs"):
        cx.data.prepare("cifar_fs", archives="no.tar.gz", data_dir=tmp_path)


def test_numbers_of_numpy_and_keys_of_either_kind_are_taken():
    params = fit(iterations=np.int64(1), tasks=np.int32(1), seed=np.uint32(7))
    with_old_key = LEARNER.init(jax.random.PRNGKey(0), STORE.images)
    jax.tree.map(np.testing.assert_array_equal, LEARNER.init(jax.random.key(0), STORE.images), with_old_key)
    assert len(cx.evaluate(LEARNER, params, SAMPLER, episodes=np.int64(2)).accuracies) == 2


def test_one_episode_has_no_interval():
    result = cx.evaluate(LEARNER, LEARNER.init(jax.random.key(0), STORE.images), SAMPLER, episodes=1)
    assert "±" not in repr(result) and "one episode" in repr(result)


def test_episodes_of_fewer_classes_are_taken():
    narrow, params = cx.sampler(STORE, way=2, shot=1, query=2), LEARNER.init(jax.random.key(0), STORE.images)
    assert len(cx.evaluate(LEARNER, params, narrow, episodes=2).accuracies) == 2


def test_a_path_may_begin_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    cx.save("~/some.safetensors", None, {"a": np.ones(2)})
    assert (tmp_path / "some.safetensors").is_file()
    _, params = cx.load("~/some.safetensors", LEARNER)
    np.testing.assert_array_equal(params["a"], np.ones(2))
