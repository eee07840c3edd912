"""Classifiers of photos as files: one safetensors file with a readable header.

The arrays are ``backbone/params/…``, ``backbone/batch_stats/…``, ``head/weights``, ``head/bias`` and ``prototypes``.
The header has ``"photos"`` (this format's number), ``"description"`` (JSON: classes, model, preprocessing, head,
threshold, estimate) and ``"sha256"`` of the arrays.
"""

import json
from typing import Any

import jax
import numpy as np

from cxgrad_jax import models
from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import by_path, merge, model_from_spec, model_spec
from cxgrad_jax.photos._backbones import Backbone
from cxgrad_jax.photos._classifier import Classifier
from cxgrad_jax.photos._estimate import Estimate
from cxgrad_jax.photos._folders import PathLike
from cxgrad_jax.photos._heads import Head
from cxgrad_jax.photos._preprocessing import Preprocessing
from cxgrad_jax.saving import params_sha256, read_arrays, write_arrays

FORMAT = "1"  # a change that older files cannot follow raises it


def save_classifier(path: PathLike, classifier: Classifier) -> None:
    """Writes the file, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    network, head = classifier.backbone, classifier.head
    tree = {
        "backbone": network.variables,
        "head": {"weights": head.weights, "bias": head.bias},
        "prototypes": classifier.prototypes,
    }
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in by_path(tree).items()}
    ours = getattr(models, type(network.model).__name__, None) is type(network.model)
    description = {
        "class_names": classifier.class_names,
        "backbone": network.name,
        "model": model_spec(network.model) if ours else None,
        "preprocessing": network.preprocessing._asdict(),
        "head": {"kind": head.kind, "strength": head.strength, "temperature": head.temperature},
        "threshold": classifier.threshold,
        "estimate": classifier.estimate._asdict(),
    }
    header = {"photos": FORMAT, "description": json.dumps(description), "sha256": params_sha256(arrays)}
    write_arrays(as_path("path", path), arrays, header)


def load_classifier(path: PathLike, model: Any = None) -> Classifier:
    """Reads a classifier, see ``cx.photos.load``."""
    path = as_path("path", path)
    header, arrays = read_arrays(path, "cxgrad photos fit", "photos", FORMAT)
    if params_sha256(arrays) != header["sha256"]:
        raise UserError(f"{path} is damaged (its arrays are not those that were saved); get it again")
    try:
        told = json.loads(header["description"])
        if model is None and told["model"] is None:
            raise UserError(f"{path} holds a model that is not this package's; give it: cx.photos.load(path, model)")
        network = model or model_from_spec(told["model"])
        tree = merge(arrays)
        preprocessing = Preprocessing(**{key: _tuple(value) for key, value in told["preprocessing"].items()})
        variables = jax.device_put(tree["backbone"])
        head = Head(weights=tree["head"]["weights"], bias=tree["head"]["bias"], **told["head"])
        estimate = Estimate(**{key: _tuple(value) for key, value in told["estimate"].items()})
        return Classifier(
            Backbone(told["backbone"], network, variables, preprocessing), tuple(told["class_names"]), head,
            tree["prototypes"], told["threshold"], estimate,
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); get it again") from None


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
