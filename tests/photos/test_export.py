"""Exported programs give the classifier's own answers."""

import json

import jax
import numpy as np
import pytest
from pictures import folder_of_shapes

import cxgrad_jax as cx


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
