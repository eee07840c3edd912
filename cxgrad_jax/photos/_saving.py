"""Classifiers of photos as files: one safetensors file with a readable header.

The arrays are ``backbone/params/…``, ``backbone/batch_stats/…``, ``head/weights``, ``head/bias`` and ``prototypes``.
The header has ``"photos"`` (this format's number), ``"description"`` (JSON: classes, model, preprocessing, head,
threshold, estimate, and ``"photos_sha256"``, of each photo), ``"sha256"`` of the arrays, and ``"sha256_of_all"``, of
these and the description. Earlier versions did not write ``"photos_sha256"`` and ``"sha256_of_all"``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cxgrad_jax import models
from cxgrad_jax.arguments import as_path, check_kind, is_finite
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import by_path, merge, model_from_spec, model_spec
from cxgrad_jax.photos._backbones import EXPECTED_MODEL, Backbone
from cxgrad_jax.photos._classifier import Classifier
from cxgrad_jax.photos._estimate import Estimate
from cxgrad_jax.photos._folders import PathLike
from cxgrad_jax.photos._heads import Head
from cxgrad_jax.photos._preprocessing import Preprocessing, plain
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
        "photos_sha256": sorted(classifier.digests),
    }
    header = {"photos": FORMAT, "description": json.dumps(description), "sha256": params_sha256(arrays)}
    header["sha256_of_all"] = _sha256_of_all(header)
    write_arrays(as_path("path", path), arrays, header)


def load_classifier(path: PathLike, model: Any = None) -> Classifier:
    """Reads a classifier, see ``cx.photos.load``."""
    path = as_path("path", path)
    if model is not None:
        check_kind("model", model, ("apply", "embed"), EXPECTED_MODEL)
    header, arrays = read_arrays(path, "cxgrad photos fit", "photos", FORMAT)
    if params_sha256(arrays) != header["sha256"]:
        raise _damaged(path, "its arrays are not those that were saved")
    try:
        if "sha256_of_all" in header and header["sha256_of_all"] != _sha256_of_all(header):
            raise _damaged(path, "its description is not the one that was saved")
        told = json.loads(header["description"])
        if model is None and told["model"] is None:
            raise UserError(f"{path} holds a model that is not this package's; give it: cx.photos.load(path, model)")
        network = model or model_from_spec(told["model"])
        tree = merge(arrays)
        try:
            preprocessing = plain(Preprocessing(**told["preprocessing"]))
        except UserError as error:
            raise _damaged(path, str(error)) from None
        variables = jax.device_put(tree.get("backbone", {}))  # a network without parameters
        head = Head(weights=tree["head"]["weights"], bias=tree["head"]["bias"], **told["head"])
        estimate = Estimate(**{key: _tuple(value) for key, value in told["estimate"].items()})
        classifier = Classifier(
            Backbone(told["backbone"], network, variables, preprocessing), tuple(told["class_names"]), head,
            tree["prototypes"], told["threshold"], estimate, frozenset(told.get("photos_sha256", ())),
        )  # fmt: skip
        fault = _fault(classifier)
        if fault:
            raise _damaged(path, fault)
        return classifier
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _damaged(path, f"{type(error).__name__}: {error}") from None


def _damaged(path: Path, cause: str) -> UserError:
    return UserError(f"{path} is damaged ({cause}); get it again or fit again")


def _sha256_of_all(header: dict[str, str]) -> str:
    """SHA-256 of the arrays' digest and the description, as hexadecimal digits."""
    return hashlib.sha256(f"{header['sha256']} {header['description']}".encode()).hexdigest()


def _fault(classifier: Classifier) -> str:
    """Says in a few words why ``fit`` cannot have made the classifier; "" if it can.

    A file of an earlier version has no digest of its description, and somebody may have edited it.
    """
    head, names = classifier.head, classifier.class_names
    dimension, classes = np.shape(head.weights)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != classes:
        return f"it names {len(set(names))} classes, and its head has {classes}"
    if np.shape(head.bias) != (classes,) or np.shape(classifier.prototypes) != (dimension, classes):
        return f"its head has {classes} classes of {dimension} features, and its other arrays do not fit"
    if not is_finite(head.temperature) or head.temperature <= 0:
        return f"its temperature is {head.temperature!r}"
    if classifier.threshold is not None and not is_finite(classifier.threshold):
        return f"its threshold is {classifier.threshold!r}"
    return ""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
