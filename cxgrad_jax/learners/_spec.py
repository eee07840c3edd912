"""A learner as plain values. ``repr`` shows them, a saved file holds them, and ``from_spec`` makes a learner of them.

    {"learner": "cxgrad", "hyper_parameters": {"inner_lr": 0.01, ..., "param_labels": "default_labels"},
     "model": {"class": "Conv4", "fields": {"num_classes": 5, ...}}, "undescribed": []}

A part of the caller's own (a factory, a model's class, a function) appears by its dotted name, such as
``"my_module.Wide"``. It is also listed under ``"undescribed"``, because it cannot be rebuilt from its name: what a file
names is never imported. The spec of a learner that no ``described`` factory made is empty, ``{}``.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from cxgrad_jax import models
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._checks import check_hyper_parameters, check_model
from cxgrad_jax.learners._meta_learner import MetaLearner

P = ParamSpec("P")

OURS = __name__.split(".")[0]  # this package
PARTS = {"learner", "hyper_parameters", "model", "undescribed"}  # of a spec


def described(factory: Callable[P, MetaLearner]) -> Callable[P, MetaLearner]:
    """Decorates a learner's factory: it then checks its hyper-parameters, and its learners carry their ``spec``.

    Args:
      factory: the factory. It takes a model, and hyper-parameters by keyword. If a hyper-parameter has the name of one
        of this package's, it means the same and is checked in the same way.

    Returns:
      The factory with the checks. It raises ``UserError`` for a bad model or hyper-parameter, and for one that the
      factory does not have.
    """
    signature = inspect.signature(factory)
    options = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())

    @functools.wraps(factory)
    def make(*arguments: P.args, **keywords: P.kwargs) -> MetaLearner:
        try:
            bound = signature.bind(*arguments, **keywords)
        except TypeError as error:
            known = ", ".join([*signature.parameters][1:])
            raise UserError(f"{factory.__name__}: {error}; expected a model, and by keyword {known}") from None
        bound.apply_defaults()
        (_, model), *given = bound.arguments.items()
        if options:  # the keywords of the factory's own **options
            given = [*given[:-1], *given[-1][1].items()]
        hyper_parameters = {name: value.item() if isinstance(value, np.generic) else value for name, value in given}
        check_model(model)
        check_hyper_parameters(hyper_parameters)
        undescribed: list[str] = []
        spec = {
            "learner": _name(factory, undescribed),
            "hyper_parameters": {name: _plain(value, undescribed) for name, value in hyper_parameters.items()},
            "model": _plain(model, undescribed),
            "undescribed": undescribed,
        }
        return factory(model, **hyper_parameters)._replace(spec=spec)  # pyright: ignore[reportCallIssue]

    return make


def model_spec(model: nn.Module) -> dict[str, Any]:
    """What a ``spec`` says of its model: its class and its fields, ``{"class": ..., "fields": {...}}``."""
    return _plain(model, [])


def model_from_spec(spec: dict[str, Any]) -> nn.Module:
    """Makes the model that ``model_spec`` describes.

    Raises:
      UserError: this version has no such model, or the model has no such field.
    """
    if not isinstance(spec, Mapping) or set(spec) != {"class", "fields"}:
        raise UserError(f"spec is {spec!r}; expected a dict with class and fields, as model_spec makes it")
    name = spec["class"]
    if name not in models.__all__:
        raise UserError(f"{name!r} is not known to this version of cxgrad_jax")
    try:
        return getattr(models, name)(**{field: _from_plain(value) for field, value in spec["fields"].items()})
    except TypeError as error:  # a field that is gone
        raise UserError(f"the model was described by another version of cxgrad_jax: {error}") from None


def from_spec(spec: dict[str, Any]) -> MetaLearner:
    """Makes the learner that a ``spec`` describes.

    Args:
      spec: a ``MetaLearner.spec``.

    Raises:
      UserError: the spec is empty, has a part of the caller's own, or names something that this version does not have.
    """
    from cxgrad_jax import learners  # not above, because learners imports this module

    if not isinstance(spec, Mapping) or set(spec) - PARTS:
        raise UserError(f"spec is {spec!r}; expected the spec of a learner, a dict with {', '.join(sorted(PARTS))}")
    if not spec:
        raise UserError("the learner is not described; give the learner itself")
    if PARTS - set(spec):
        raise UserError(f"spec has no {min(PARTS - set(spec))!r}; expected the spec of a learner, whole")
    if spec["undescribed"]:
        raise UserError(f"{spec['undescribed'][0]} is not part of this package; give the learner itself")
    try:
        model = model_from_spec(spec["model"])
        factory = {name: getattr(learners, name) for name in learners.NAMES}[spec["learner"]]
        hyper_parameters = dict(spec["hyper_parameters"])
        if "param_labels" in hyper_parameters:
            known = {name: getattr(learners, name) for name in learners.LABEL_FUNCTIONS}
            hyper_parameters["param_labels"] = known[hyper_parameters["param_labels"]]
    except KeyError as error:
        raise UserError(f"{error.args[0]!r} is not known to this version of cxgrad_jax") from None
    if gone := set(hyper_parameters) - set(inspect.signature(factory).parameters):
        raise UserError(f"the learner was described by another version of cxgrad_jax: it has no {min(gone)}")
    return factory(model, **hyper_parameters)


def text_of(spec: dict[str, Any]) -> str:
    """One line that a reader understands: ``cxgrad(Conv4(num_classes=5), inner_lr=0.05)``; defaults are left out."""
    from cxgrad_jax import learners  # which imports this module

    model, name = spec["model"], spec["learner"]
    model_class = getattr(models, model["class"], None)
    defaults = {field.name: field.default for field in dataclasses.fields(model_class)} if model_class else {}
    inner = f"{model['class']}({', '.join(_changes(model['fields'], defaults))})"
    factory = getattr(learners, name, None)
    parameters = inspect.signature(factory).parameters if factory else {}
    changes = _changes(spec["hyper_parameters"], {key: value.default for key, value in parameters.items()})
    return f"{name}({', '.join([inner, *changes])})"


def _changes(values: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    plain = {name: _plain(value, []) for name, value in defaults.items()}
    return [f"{name}={value!r}" for name, value in values.items() if name not in plain or value != plain[name]]


def _plain(value: Any, undescribed: list[str]) -> Any:
    """Returns ``value`` in a form that JSON can hold. What has none goes to ``undescribed`` by name."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(each, undescribed) for each in value]
    if isinstance(value, nn.Module):
        fields = [field.name for field in dataclasses.fields(value) if field.name not in ("parent", "name")]
        described = {name: _plain(getattr(value, name), undescribed) for name in fields}
        return {"class": _name(type(value), undescribed), "fields": described}
    if isinstance(value, np.dtype) or isinstance(getattr(value, "dtype", None), np.dtype) or _is_scalar_type(value):
        return jnp.dtype(value).name
    return _name(value, undescribed)


def _name(value: Any, undescribed: list[str]) -> str:
    """The name of a function or class. It is short if it is this package's, else dotted and noted as undescribed."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None or name is None:
        module, name = type(value).__module__, type(value).__qualname__
    elif module.split(".")[0] == OURS and "." not in name:
        return name
    undescribed.append(f"{module}.{name}")
    return undescribed[-1]


def _is_scalar_type(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, np.generic)


def _from_plain(value: Any) -> Any:
    return tuple(map(_from_plain, value)) if isinstance(value, list) else value
