"""The labels of parameters, which say what the inner loop does with each.

A label function takes a parameter's path, such as ``"block_0/conv/kernel"``, and its value, and returns one of

    "scaled"     adapted by the inner loop, and scaled by CxGrad
    "adapted"    adapted by the inner loop
    "meta"       learned by the outer loop only

A label function may have a third argument: the class of the flax module that holds the parameter, or None if that is
not known. ``module_classes`` of ``_modules`` finds these classes.
"""

import inspect
import re
from collections.abc import Container, Mapping
from typing import Any, Protocol

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._model import Params
from cxgrad_jax.learners._modules import ModuleClass

Fast = dict[str, jax.Array]  # parameters that the inner loop adapts, by path: "block_0/conv/kernel"

SCALED, ADAPTED, META = "scaled", "adapted", "meta"

_NORMALISATION = re.compile(r"norm(ali[sz]ation)?(\d+d?)?$", re.IGNORECASE)  # the end of a class's name
_NAMED_NORMALISATION = re.compile(r"norm|(^|[/_])bn\d*(/|$)", re.IGNORECASE)  # somewhere in a path


class LabelsByPath(Protocol):
    """``(path, value) -> label``."""

    def __call__(self, path: str, value: jax.Array, /) -> str: ...


class LabelsByClass(Protocol):
    """``(path, value, module class or None) -> label``."""

    def __call__(self, path: str, value: jax.Array, module: ModuleClass | None, /) -> str: ...


ParamLabels = LabelsByPath | LabelsByClass


def default_labels(path: str, value: jax.Array, module: ModuleClass | None = None) -> str:
    """The rule of the official code: normalisation does not adapt, and the shortcuts' kernels are not scaled.

    Args:
      path: the path of the parameter, such as ``"block_0/norm/scale"``.
      value: the parameter, of which only the shape matters.
      module: the class of the module that holds the parameter. If None, the names in the path decide instead.

    Returns:
      ``"meta"`` for every parameter of a normalisation, which is a class whose name ends in "Norm", as those of flax
      and of this package do. ``"scaled"`` for a convolution kernel, except a shortcut's, which has 1x1 entries or
      "shortcut" in its path. ``"adapted"`` for the remainder.
    """
    if module is None:
        normalises = bool(_NAMED_NORMALISATION.search(path))
    else:
        normalises = any(_NORMALISATION.search(each.__name__) for each in module.__mro__)
    if normalises:
        return META
    if value.ndim == 4 and value.shape[:2] != (1, 1) and "shortcut" not in path.lower():
        return SCALED
    return ADAPTED


def split_by_label(
    model_params: Params, param_labels: ParamLabels, classes: Mapping[str, ModuleClass] | None = None
) -> tuple[Fast, Fast, list[str]]:
    """Splits a model's parameters by their labels.

    Args:
      model_params: the parameters of a model, a nested dict.
      param_labels: the label function.
      classes: the result of ``module_classes``, for a label function with a third argument.

    Returns:
      The adapted parameters by path (those labelled ``"scaled"`` among them), the others by path, and the paths of the
      scaled ones. Paths are in natural order (``block_2`` before ``block_10``), kernels before biases. That is the
      forward order of the models here.

    Raises:
      UserError: a label is none of the three, or no parameter adapts.
    """
    flat = by_path(model_params)
    labels = labels_by_path(flat, param_labels, classes)
    fast = {path: flat[path] for path, label in labels.items() if label != META}
    if not fast:
        raise UserError("no parameter of the model adapts: param_labels gave 'meta' for every path")
    frozen = {path: flat[path] for path, label in labels.items() if label == META}
    return fast, frozen, [path for path, label in labels.items() if label == SCALED]


def labels_by_path(
    flat: Mapping[str, jax.Array], param_labels: ParamLabels, classes: Mapping[str, ModuleClass] | None = None
) -> dict[str, str]:
    """The label of each parameter of ``flat``, by path, in the order of ``split_by_label``."""
    told_classes = _takes_classes(param_labels)
    labels = {}
    for path in sorted(flat, key=_natural):
        module = (classes or {}).get(path.rpartition("/")[0])
        label = param_labels(path, flat[path], module) if told_classes else param_labels(path, flat[path])  # pyright: ignore
        if label not in (SCALED, ADAPTED, META):
            raise UserError(f"label {label!r} of parameter {path}: expected '{SCALED}', '{ADAPTED}' or '{META}'")
        labels[path] = label
    return labels


def _takes_classes(param_labels: ParamLabels) -> bool:
    """Whether a label function takes a third argument, the module's class."""
    try:
        parameters = inspect.signature(param_labels).parameters
    except ValueError:  # some of Python's own functions have none
        parameters = {}
    if len(parameters) < 2 and not any(x.kind is x.VAR_POSITIONAL for x in parameters.values()):
        raise UserError(
            f"param_labels takes {len(parameters)} arguments; expected a function of path and value, and of the "
            "module's class if it needs that"
        )
    return len(parameters) > 2


def by_path(params: Params, until: Container[str] = ()) -> dict[str, Any]:
    """Turns a nested dict of parameters into one dict by path, such as ``"block_0/conv/kernel"``.

    What stands at a path in ``until`` stays as it is, nested or not. ``merge`` is the inverse.
    """
    return dict(flatten_dict(params, is_leaf=lambda path, _: "/".join(path) in until, sep="/"))


def merge(*parts: Mapping[str, Any]) -> Params:
    """The inverse of ``split_by_label`` and ``by_path``: makes one nested dict of parameters by path.

    Raises:
      UserError: a path leads through another, such as ``"head/kernel"`` through ``"head"``.
    """
    paths = {path for part in parts for path in part}
    for path in paths:
        for inside in paths & {path[:end] for end, character in enumerate(path) if character == "/"}:
            raise UserError(f"{path} lies inside {inside}, and both are given as parameters; leave out one of them")
    return unflatten_dict({path: value for part in parts for path, value in part.items()}, sep="/")


def _natural(path: str) -> list[Any]:
    """The key that sorts paths by their numbers."""
    path = path.removesuffix("kernel")  # so that a kernel sorts before its bias
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]
