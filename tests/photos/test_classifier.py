"""Fit, predict, save and load, with a small network so that it is quick."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors
from pictures import folder_of_shapes, shape
from PIL import Image
from small_backbone import conv4

import cxgrad_jax as cx
from cxgrad_jax.saving import read_arrays, write_arrays


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


def test_features_that_are_not_finite_are_refused(root):
    backbone = conv4()
    spoilt = backbone._replace(variables=jax.tree.map(lambda x: x * np.nan, backbone.variables))
    with pytest.raises(cx.UserError, match="the features of small are not finite, so its weights cannot be used"):
        cx.photos.fit(root, backbone=spoilt)


def test_nothing_is_broadcast_or_promoted_in_silence(root, classifier):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        strict = cx.photos.fit(root, backbone=conv4())
    assert strict.predict(root) == classifier.predict(root)


def test_photos_that_cannot_be_read_are_told_without_statistics_too(tmp_path):
    for place in ("cat/0.jpg", "dog/0.jpg"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(b"no photo")
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=3, features=4))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(cx.UserError, match="0.jpg .*and 1 other photos cannot be read"):
        cx.photos.fit(tmp_path, backbone=cx.photos.backbone_of_learner(learner, params, 32))


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
