"""A table of which parameter plays which part."""

import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cxgrad_jax.arguments import check_kind, check_params
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checked import model_and_labels
from cxgrad_jax.learners._checks import check_hyper_parameters, check_images
from cxgrad_jax.learners._labels import ADAPTED, META, SCALED, ParamLabels, by_path, default_labels, labels_by_path
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._model import Params
from cxgrad_jax.learners._modules import ModuleClass, module_classes
from cxgrad_jax.learners._statistics import STATISTICS

ROLES = {SCALED: "adapted, and scaled by CxGrad", ADAPTED: "adapted", META: "outer loop only"}
SIZES, CHANNELS = (84, 32, 28, 64, 224, 16), (3, 1)  # of images, which are tried if none are given


def describe(
    learner_or_model: MetaLearner | nn.Module,
    params: Params,
    *,
    images: Any = None,
    param_labels: ParamLabels = default_labels,
) -> str:
    """Makes a table, to be printed, with path, shape, module and part of every parameter.

    Args:
      learner_or_model: a learner, or a model that is to be given to one.
      params: the parameters that the learner's ``init`` makes, or those of the model.
      images: ``[N, H, W, C]`` that the model takes. They are only needed if it takes none of the usual sizes.
      param_labels: the label function for a model. A learner has its own.

    Returns:
      The lines of the table as one string.

    Raises:
      UserError: an argument has the wrong type, the learner does not know its labels, or the model takes none of the
        usual sizes of images.
    """
    check_kind("learner_or_model", learner_or_model, ("init",), "a learner or a flax.linen module")
    check_params(params)
    if not isinstance(params, Mapping):
        raise UserError(f"params is of type {type(params).__name__}; expected a dict, as init gives it")
    if images is not None and not isinstance(images, jax.ShapeDtypeStruct):
        images = check_images("images", images)
    check_hyper_parameters({"param_labels": param_labels})
    if isinstance(learner_or_model, MetaLearner):
        model, labels_of = model_and_labels(learner_or_model)
        if model is None:
            raise UserError("this learner does not report which parameters adapt; give its model and its param_labels")
        flat = by_path(params)
        model_params = {path.removeprefix("model/"): x for path, x in flat.items() if path.startswith("model/")}
        others = {path: x for path, x in flat.items() if not path.startswith("model/")}
        prefix = "model/"
    else:
        model, labels_of = learner_or_model, param_labels
        model_params, others, prefix = by_path(params.get("params", params)), {}, ""
    classes = module_classes(model, images) if images is not None else _classes_of_usual_images(model)
    if labels_of is None:
        labels = dict.fromkeys(model_params, META)
    else:
        labels = labels_by_path(model_params, labels_of, classes)
    rows = [("parameter", "shape", "module", "part")]
    for path, label in labels.items():
        module = classes.get(path.rpartition("/")[0])
        rows.append((prefix + path, _shape(model_params[path]), module.__name__ if module else "", ROLES[label]))
    for path, x in others.items():
        rows.append((path, _shape(x), "", "running average" if path.startswith(f"{STATISTICS}/") else ROLES[META]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _classes_of_usual_images(model: nn.Module) -> dict[str, ModuleClass]:
    for channels, size in itertools.product(CHANNELS, SIZES):
        try:
            return module_classes(model, jax.ShapeDtypeStruct((1, size, size, channels), np.float32))
        except Exception:  # a user's model may raise anything
            continue
    raise UserError(f"{type(model).__name__} takes no images of the sizes {', '.join(map(str, SIZES))}; give images=")


def _shape(x: Any) -> str:
    return str(list(x.shape))
