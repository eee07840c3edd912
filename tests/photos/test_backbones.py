"""Any network with ``embed`` is a backbone, or is refused in one line."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_backbone import conv4

import cxgrad_jax as cx
from cxgrad_jax.photos import Backbone, Preprocessing, _backbones
from cxgrad_jax.weight_files import bundled


def test_a_meta_trained_learner_is_a_backbone(root, tmp_path):
    model = cx.models.Conv4(num_classes=3, features=4)
    learner = cx.learners.proto_net(model)
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    cx.save(tmp_path / "mine.safetensors", learner, params, image_size=32)
    clf = cx.photos.fit(root, backbone=tmp_path / "mine.safetensors")
    assert "batch_stats" in clf.backbone.variables
    assert (clf.backbone.preprocessing.channels, clf.backbone.preprocessing.size) == (3, 32)
    together = clf.predict(root)
    assert clf.predict(together[3].file)[0] == together[3]


def test_a_backbone_knows_the_size_of_its_images_or_asks_for_it(root, tmp_path):
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=3, features=4))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    path = tmp_path / "mine.safetensors"
    cx.save(path, learner, params)
    with pytest.raises(cx.UserError, match="mine.safetensors does not say the size of the images that it was trained"):
        cx.photos.fit(root, backbone=path)
    given = cx.photos.backbone_of_learner(learner, params, 48)
    assert cx.photos.fit(root, backbone=given).backbone.preprocessing.size == 48
    maml = cx.learners.maml(cx.models.Conv4(num_classes=3, features=4))  # its head tells the size
    cx.save(path, maml, maml.init(jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32)))
    assert cx.photos.fit(root, backbone=path).backbone.preprocessing.size == 28


class WithFlaxNorm(nn.Module):
    num_classes: int = 3

    def setup(self):
        self.conv, self.norm, self.head = nn.Conv(4, (3, 3)), nn.BatchNorm(use_running_average=False), nn.Dense(3)

    def embed(self, x):
        return nn.relu(self.norm(self.conv(x))).mean(axis=(1, 2))

    def __call__(self, x):
        return self.head(self.embed(x))


def test_a_network_with_flax_norms_takes_the_statistics_of_the_photos(root):
    learner = cx.learners.maml(WithFlaxNorm())
    params = learner.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    clf = cx.photos.fit(root, backbone=cx.photos.backbone_of_learner(learner, params, 16))
    found = clf.backbone.variables["batch_stats"]["norm"]
    assert np.all(found["mean"] != 0) and np.all(found["var"] < 0.9)
    together = clf.predict(root)
    assert clf.predict(together[3].file)[0] == together[3]


class Pixels(nn.Module):
    def embed(self, x):
        return x.reshape(len(x), -1)


def test_a_network_without_parameters_is_a_backbone(root, tmp_path):
    backbone = Backbone("pixels", Pixels(), {}, Preprocessing(8))
    fitted = cx.photos.fit(root, backbone=backbone)
    fitted.save(tmp_path / "pixels.safetensors")
    assert cx.photos.load(tmp_path / "pixels.safetensors", Pixels()).predict(root) == fitted.predict(root)


def test_fields_that_are_lists_do_no_harm(root):
    channels: Any = [4, 4, 4, 4]
    learner = cx.learners.proto_net(cx.models.ResNet12(3, channels=channels), query_statistics="running")
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    classifier = cx.photos.fit(root, backbone=cx.photos.backbone_of_learner(learner, params, 32))
    assert len(classifier.predict(root)) == 18


@pytest.mark.parametrize("size", ["32", 32.5, 0])
def test_a_size_that_is_none_is_refused(size):
    learner = cx.learners.maml(cx.models.Conv4(num_classes=2, features=2))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(cx.UserError, match="size is .*; expected a whole number, at least 1"):
        cx.photos.backbone_of_learner(learner, params, size)


def test_networks_that_do_nothing_without_their_learner_are_refused():
    model = cx.models.Conv4(num_classes=3, features=4)
    for name, words in (
        ("cavia", "needs CAVIA's learned FiLM layer"),
        ("maml_plus_plus", r"norm/\w+ has shape \(5, 4\)"),
    ):
        learner = getattr(cx.learners, name)(model)
        params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
        with pytest.raises(cx.UserError, match=words):
            cx.photos.backbone_of_learner(learner, params, 32)


@pytest.mark.parametrize("name", sorted(bundled()))
def test_bundled_weights_take_photos_of_the_size_that_they_were_trained_on(name):
    size = _backbones.find_backbone(name).preprocessing.size
    card = Path(__file__).parents[2] / "weights" / f"{name}.md"
    assert f"**images**: `[N, {size}, {size}, " in card.read_text()


def test_bundled_weights_are_a_backbone_with_their_running_averages(root):
    learner, params = cx.load("classifier_baseline_glyphs")
    averages = params["statistics"]["model"]["block_0"]["norm"]
    clf = cx.photos.fit(root, backbone="classifier_baseline_glyphs")
    jax.tree.map(np.testing.assert_array_equal, clf.backbone.variables["batch_stats"]["block_0"]["norm"], averages)


class Own(nn.Module):
    """A model of the user's."""

    def __call__(self, x):
        return self.embed(x)

    @nn.compact
    def embed(self, x):
        return nn.Dense(6)(jnp.mean(x, axis=(1, 2)))


def test_any_flax_module_is_a_backbone(root, tmp_path):
    images = np.zeros((1, 16, 16, 3), np.float32)
    variables = Own().init(jax.random.key(0), images)
    own = Backbone("own", Own(), dict(variables), Preprocessing(16, mean=(0.5,), deviation=(0.5,)))
    clf = cx.photos.fit(root, backbone=own)
    clf.save(tmp_path / "own.safetensors")
    with pytest.raises(cx.UserError, match="not this package's"):
        cx.photos.load(tmp_path / "own.safetensors")
    assert cx.photos.load(tmp_path / "own.safetensors", Own()).predict(root) == clf.predict(root)


@pytest.mark.parametrize(
    "preprocessing",
    [
        {"size": 16, "mean": 0.5, "deviation": np.float32(0.5)},
        {"size": np.int64(16), "views": ["middle"], "mean": [0.5, 0.5, 0.5], "deviation": np.full(3, 0.5, np.float32)},
        {"size": 16, "views": "middle", "channels": np.int32(3), "mean": jnp.full(1, 0.5), "deviation": (0.5,)},
    ],
)
def test_numbers_of_any_kind_are_saved_and_loaded(preprocessing, classifier, root, tmp_path):
    model, variables = classifier.backbone.model, classifier.backbone.variables
    plain = Backbone("own", model, variables, Preprocessing(16, mean=(0.5,), deviation=(0.5,)))
    photo = next(root.glob("*/*"))
    expected = cx.photos.all_features(plain, photo).features
    own = plain._replace(preprocessing=Preprocessing(**preprocessing))
    np.testing.assert_array_equal(cx.photos.all_features(own, [photo]).features, expected)
    clf = cx.photos.fit(root, backbone=own)
    clf.save(tmp_path / "own.safetensors")
    again = cx.photos.load(tmp_path / "own.safetensors")
    assert again.predict(photo) == clf.predict(photo)
    assert again.backbone.preprocessing == clf.backbone.preprocessing and type(again.backbone.preprocessing.size) is int


class WithoutEmbed(nn.Module):
    def __call__(self, x):
        return x


class Maps(nn.Module):
    def embed(self, x):
        return x


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"views": ("middle", "x")}, "views is ('middle', 'x'); expected some of middle, whole"),
        ({"views": ()}, "views is (); expected some of middle, whole"),
        ({"views": 3}, "views is 3; expected some of"),
        ({"channels": 4}, "channels is 4; expected 3, or 1 for grey"),
        ({"size": 0}, "size is 0; expected a whole number"),
        ({"size": 32.0}, "size is 32.0; expected a whole number"),
        ({"size": "32"}, "size is '32'; expected a whole number"),
        ({"mean": (0.5, 0.5)}, "mean is (0.5, 0.5); expected one finite number, or one for each of 3 channels"),
        ({"mean": "grey"}, "mean is 'grey'; expected one finite number"),
        ({"deviation": np.zeros(3)}, "deviation is (0.0, 0.0, 0.0); expected no 0"),
        (None, "preprocessing is 32; expected cx.photos.Preprocessing(size, ...)"),
        (WithoutEmbed(), "model is of type WithoutEmbed; expected a flax.linen module with a method embed"),
        (Maps(), "small is not a backbone: its embed gives shape [1, 32, 32, 3] for one image; expected a flax.linen"),
        (Own, "model is the class Own; expected a flax.linen module"),
        (WithFlaxNorm(), "small is not a backbone: its embed fails on images of shape [1, 32, 32, 3] ("),
    ],
)
def test_a_backbone_that_cannot_be_one_is_refused(fields, line, root):
    small = conv4()
    if isinstance(fields, dict):
        small = small._replace(preprocessing=small.preprocessing._replace(**fields))
    else:
        small = small._replace(**({"preprocessing": 32} if fields is None else {"model": fields}))
    with pytest.raises(cx.UserError) as error:
        cx.photos.fit(root, backbone=small)
    assert line in str(error.value) and "\n" not in str(error.value)
