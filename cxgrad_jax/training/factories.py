"""The learners and models that a configuration names."""

import dataclasses
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from cxgrad_jax import learners, models
from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.learners import MetaLearner

MODELS = {
    "conv4": models.Conv4, "r2d2_conv4": models.R2D2Conv4, "relation_conv4": models.RelationConv4,
    "resnet12": models.ResNet12,
}  # fmt: skip


def learner_factory(name: str) -> Callable[..., MetaLearner]:
    """The factory ``cxgrad_jax.learners.NAME``, or the ``MODULE.NAME`` of the user's own.

    Raises:
      UserError: there is none, or its module cannot be imported.
    """
    if "." in name:
        return _own("learner.name", name)
    if name in learners.NAMES:
        return getattr(learners, name)
    known = ", ".join(learners.NAMES)
    raise UserError(
        f"learner.name is {name!r}; expected one of {known}, or MODULE.FUNCTION that Python finds from here"
    )


def model_class(name: str) -> Callable[..., nn.Module]:
    """The model that the package calls ``name``, or the ``MODULE.CLASS`` of the user's own.

    Raises:
      UserError: there is none, or its module cannot be imported.
    """
    if "." in name:
        return _own("model.name", name)
    if name in MODELS:
        return MODELS[name]
    known = ", ".join(MODELS)
    raise UserError(f"model.name is {name!r}; expected one of {known}, or MODULE.CLASS that Python finds from here")


def hyper_parameters(name: str) -> dict[str, Any]:
    """The keyword-only arguments of a learner's factory and their defaults, without those that are functions.

    A list becomes a tuple, as values of a configuration are.

    Raises:
      UserError: there is no such factory, or it cannot be called with a model alone.
    """
    factory = learner_factory(name)
    try:
        signature = inspect.signature(factory)
        signature.bind("model")
    except (TypeError, ValueError) as error:  # ValueError: of a built-in
        raise UserError(
            f"learner.name is {name!r}; expected a function that makes a learner of a model alone, with defaults for "
            f"its hyper-parameters: {reason(error)}"
        ) from None
    return {
        key: tuple(parameter.default) if isinstance(parameter.default, list) else parameter.default
        for key, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and not callable(parameter.default)
    }


def model_fields(name: str) -> dict[str, Any]:
    """The fields of a model and their defaults, without ``num_classes`` and those that have no default.

    Raises:
      UserError: the class is not a dataclass, which every ``flax.linen`` module is.
    """
    model = model_class(name)
    if not dataclasses.is_dataclass(model):
        raise UserError(f"model.name is {name!r}, which is not a flax.linen module class; expected MODULE.CLASS of one")
    return {
        field.name: field.default
        for field in dataclasses.fields(model)
        if field.name not in ("num_classes", "parent", "name")
        and isinstance(field.default, bool | int | float | str | tuple | None)
    }


def _own(field: str, name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    if not module or not attribute:
        raise UserError(f"{field} is {name!r}; expected MODULE.NAME that Python finds from here")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # the module is the user's code and may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and (module + ".").startswith(error.name + "."):
            raise UserError(f"{field} is {name!r}; Python finds no module {error.name} from here") from None
        cause = f"{type(error).__name__}: {reason(error)}"
        raise UserError(f"{field} is {name!r}; importing {module} gave {cause}") from None
    if not hasattr(found, attribute):
        raise UserError(f"{field} is {name!r}; {module} has no {attribute}")
    return getattr(found, attribute)
