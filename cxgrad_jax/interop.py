"""Official PyTorch weights, in and out.

The official codes store convolutions as OIHW and linear weights as ``(out, in)``, and flatten features from
``(C, H, W)``. Here they are HWIO, ``(in, out)`` and ``(H, W, C)``. The codes of CxGrad, ALFA, L2F and MAML++ are one
family with the same names, for Conv-4 and for ALFA's ResNet-12. Those of BOIL and CAVIA have names of their own, for
Conv-4. The official learned rates have one entry more than there are steps. No step uses the last one, so it is left
out here and written back as 0.

The code of the family: https://github.com/shlee625/CxGrad
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from cxgrad_jax import learners
from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import UserError

__all__ = ["from_official", "load_official", "to_official"]

# Official module -> ours. Conv-4 keeps its blocks under convK, ResNet-12 under layerK.
_BLOCK_MODULES = {
    "conv{}.conv": "conv",
    "conv{}.norm_layer": "norm",
    "layer{}.conv1.conv": "conv_0",
    "layer{}.conv1.norm_layer": "norm_0",
    "layer{}.conv2.conv": "conv_1",
    "layer{}.conv2.norm_layer": "norm_1",
    "layer{}.conv3": "conv_2",
    "layer{}.norm_layer": "norm_2",
    "layer{}.shortcut_conv": "shortcut_conv",
    "layer{}.shortcut_norm_layer": "shortcut_norm",
}


def _weight_and_bias(module: str, path: str) -> dict[str, str]:
    return {f"{module}.weight": f"{path}/{'scale' if 'norm' in path else 'kernel'}", f"{module}.bias": f"{path}/bias"}


def _mlp(module: str, path: str) -> dict[str, str]:
    return _weight_and_bias(f"{module}.0", f"{path}/hidden") | _weight_and_bias(f"{module}.2", f"{path}/output")


def _rates(family: Mapping[str, str], table: str, section: str) -> dict[str, str]:
    """The learned rates of a table of the official inner optimiser. Every parameter but a normalisation's has some."""
    names = {}
    for name, path in family.items():
        if "norm" not in path:
            parameter = name.removeprefix("classifier.").replace(".", "-")
            names[f"inner_loop_optimizer.{table}.{parameter}"] = path.replace("model", section, 1)
    return names


def _conv4(conv: str, norm: str, head: str, first: int) -> dict[str, str]:
    names = _weight_and_bias(head, "model/head")
    for block in range(4):
        names |= _weight_and_bias(conv.format(block + first), f"model/block_{block}/conv")
        names |= _weight_and_bias(norm.format(block + first), f"model/block_{block}/norm")
    return names


def _family() -> dict[str, str]:
    """Official name -> path of the parameters of the family's networks, Conv-4 and ResNet-12."""
    names = {
        "classifier.layer_dict.linear.weights": "model/head/kernel",
        "classifier.layer_dict.linear.bias": "model/head/bias",
    }
    for block in range(4):
        for official, ours in _BLOCK_MODULES.items():
            names |= _weight_and_bias(f"classifier.layer_dict.{official.format(block)}", f"model/block_{block}/{ours}")
    return names


_FAMILY = _family()

# For each learner: official parameter name -> path, of all parameters that its code can have.
_NAMES = {
    "maml": _FAMILY,
    "cxgrad": _FAMILY | _mlp("gamma_generator", "generator"),
    "l2f": _FAMILY | _mlp("attenuator", "attenuator"),
    "alfa": (
        _FAMILY | _mlp("regularizer", "generator") | _rates(_FAMILY, "names_alpha_dict", "inner_lr")
        | _rates(_FAMILY, "names_beta_dict", "decay")
    ),
    "maml_plus_plus": _FAMILY | _rates(_FAMILY, "names_learning_rates_dict", "inner_lr"),
    "anil": _conv4("features.{}.0", "features.{}.1", "classifier", 0),
    "boil": _conv4("features.{}.0", "features.{}.1", "classifier", 0),
    "cavia": _conv4("conv{}", "bn{}", "fc1", 1) | _weight_and_bias("film3", "film"),
}  # fmt: skip


def from_official(arrays: Mapping[str, Any], learner: str) -> dict[str, Any]:
    """Makes meta-parameters of the arrays of an official state dict.

    Args:
      arrays: arrays by official parameter name, OIHW and ``(out, in)``, such as
        ``"classifier.layer_dict.conv0.conv.weight" [48, 3, 3, 3]``. Dtypes are kept.
      learner: ``"cxgrad"``, ``"maml"``, ``"l2f"``, ``"alfa"``, ``"maml_plus_plus"``, ``"boil"``, ``"anil"`` (in BOIL's
        names) or ``"cavia"``. Everything that it learns beside the model must be among the arrays, and nothing else.

    Returns:
      The pytree that ``learner.init`` makes for the same model.

    Raises:
      UserError: the learner or a name is unknown, or an array is missing, surplus or of a wrong rank. Arrays whose
        sizes do not fit each other are refused where the learner first takes them.
    """
    if not isinstance(arrays, Mapping):
        raise UserError(f"arrays is of type {type(arrays).__name__}; expected arrays by official name, a state dict")
    names = _names(learner)
    flat: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name not in names:
            example = next(name for name, path in names.items() if path == "model/block_0/conv/kernel")
            surplus = any(name in others for others in _NAMES.values())
            reason = f"does not belong to {learner}" if surplus else f"is not in the official {learner} code"
            raise UserError(f"{name!r} {reason}; expected names such as {example!r}")
        flat[names[name]] = np.asarray(array)
    _check_complete(flat, learner)
    return unflatten_dict({path: _convert(path, array, flat) for path, array in flat.items()}, sep="/")


def to_official(params: Any, learner: str) -> dict[str, np.ndarray]:
    """The inverse of ``from_official``. It also works on a pytree of gradients.

    Args:
      params: meta-parameters, a pytree such as ``learner.init`` makes.
      learner: the learner, as in ``from_official``.

    Returns:
      NumPy arrays by official name, convolutions as OIHW and linear weights as ``(out, in)``. Dtypes are kept.

    Raises:
      UserError: the learner is unknown, or the official code has no such parameter.
    """
    if not isinstance(params, Mapping):
        raise UserError(f"params is of type {type(params).__name__}; expected a nested dict of arrays")
    names = {path: name for name, path in _names(learner).items()}
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(params, sep="/").items()}
    foreign = sorted(flat.keys() - names.keys())
    if foreign:
        raise UserError(f"parameter {foreign[0]!r} has no name in the official code; only Conv4's and ResNet12's have")
    _check_complete(flat, learner)
    return {names[path]: _convert_back(path, array, flat) for path, array in flat.items()}


def load_official(path: str | Path, learner: str) -> dict[str, Any]:
    """Reads meta-parameters from an official checkpoint file (``saved_models/train_model_N``).

    This needs the extra ``torch``. Code in the file is never run: a file that holds anything but tensors and plain
    values is refused. The official file keeps the state dict under ``"network"``, beside accuracies that are NumPy
    scalars. A bare state dict is read as well.

    Args:
      path: the file.
      learner: the learner, as in ``from_official``.

    Returns:
      The pytree that ``learner.init`` makes for the same model. It has no inner rate; if that of the file is not the
      learner's default, the log says so.

    Raises:
      UserError: PyTorch is missing, the file does not exist or is not a checkpoint, it has learned inner rates that the
        learner does not have, or ``from_official`` refuses its arrays.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("reading an official checkpoint needs PyTorch: pip install 'cxgrad_jax[torch]'") from None
    path = as_path("path", path)
    if not path.is_file():
        raise UserError(
            f"{path} is not a file; expected an official checkpoint such as saved_models/train_model_latest"
        )
    # A float64 scalar as NumPy 1 and NumPy 2 write it; building one runs no code of the file.
    scalar = np.float64(0).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    allowed = [*((scalar, f"{module}.scalar") for module in modules), np.dtype, type(np.dtype(np.float64))]
    try:
        with torch.serialization.safe_globals(allowed):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign or a hostile file
        reason = re.split(r"[\n.]", str(error).strip())[0]
        raise UserError(f"{path} cannot be read as a checkpoint of tensors only: {reason}") from None
    state = state.get("network", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise UserError(f"{path} holds no state dict; expected tensors by name, or such a dict under 'network'")
    arrays = {name: tensor.detach().numpy() for name, tensor in state.items()}
    # The family stores rates by tensor and step even if all are constant. Learned rates differ, if only from the last
    # one, which no step uses.
    names = _names(learner)
    rates = [name for name in arrays if "inner_loop_optimizer" in name and name not in names]
    learned = [name for name in rates if np.ptp(arrays[name]) > 0]
    if learned:
        raise UserError(f"{path} has learned inner rates ({learned[0]!r}), which {learner} here does not have")
    constants = {float(f"{np.ravel(arrays[name])[0]:.6g}") for name in rates}
    usual = inspect.signature(getattr(learners, learner)).parameters.get("inner_lr")
    if usual and constants - {usual.default}:
        told = " and ".join(map(str, sorted(constants)))
        logging.warning("%s was trained with the inner rate %s; make the learner with that inner_lr", path, told)
    # The official code stores running statistics but never reads them: every pass normalises by its own.
    unused = re.compile(r"running_(mean|var)|num_batches_tracked")
    used = {name: array for name, array in arrays.items() if name not in rates and not unused.search(name)}
    return from_official(used, learner)


def _names(learner: str) -> dict[str, str]:
    if not isinstance(learner, str) or learner not in _NAMES:
        raise UserError(f"learner {learner!r} has no official format here; expected one of {', '.join(_NAMES)}")
    return _NAMES[learner]


def _is_rate(path: str) -> bool:
    return path.startswith(("inner_lr/", "decay/"))


def _check_complete(flat: Mapping[str, np.ndarray], learner: str) -> None:
    """Refuses an incomplete set of parameters. The names that are present say which network it must be."""
    names = {path: name for name, path in _names(learner).items()}
    residual = any("shortcut" in path for path in flat)
    biased = "model/block_0/conv/bias" in flat

    def belongs(path):
        if "/block_" not in path:
            return True
        if residual != bool(re.search(r"_\d/(conv|norm)_|shortcut", path)):
            return False
        return "conv" not in path or path.endswith("kernel") or (biased and not residual)

    expected = {path for path in names if belongs(path)}
    missing = sorted(expected - flat.keys())
    if missing:
        raise UserError(f"{names[missing[0]]!r} is missing; is it a complete {learner} checkpoint?")
    surplus = sorted(flat.keys() - expected)
    if surplus:
        raise UserError(f"{names[surplus[0]]!r} does not belong to {learner} on this network")
    for path, array in flat.items():
        rank = (4 if "conv" in path else 2) if path.endswith("kernel") and not _is_rate(path) else 1
        if learner == "maml_plus_plus" and "norm" in path:
            rank += 1  # a row for each step
        if array.ndim != rank:
            raise UserError(f"{names[path]!r} has shape {list(array.shape)}; expected {rank} axes")


def _channels(flat: Mapping[str, np.ndarray]) -> int:
    """The number of channels of the features that the head sees, which the last normalisation has too."""
    return next(
        flat[path] for path in ("model/block_3/norm/scale", "model/block_3/norm_2/scale") if path in flat
    ).shape[-1]


def _convert(path: str, array: np.ndarray, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    """An official array in the form that it has here: rates without the last one, kernels with the outputs last.

    A convolution ``[O, I, H, W]`` becomes ``[H, W, I, O]``, and a linear kernel ``[O, I]`` becomes ``[I, O]``. The
    head's inputs also change their order, from that of flattened ``[C, H, W]`` to that of ``[H, W, C]``.

    Raises:
      UserError: the inputs of the head are not those of a feature map.
    """
    if _is_rate(path):
        return array[:-1]
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if path != "model/head/kernel":
        return array.T if path.endswith("kernel") else array
    positions = _positions(array.shape[1], flat)
    return array.reshape(len(array), -1, positions).transpose(2, 1, 0).reshape(-1, len(array))


def _convert_back(path: str, array: np.ndarray, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    """The inverse of ``_convert``: kernels with the outputs first, and rates with a zero at the end.

    Raises:
      UserError: the inputs of the head are not those of a feature map.
    """
    if _is_rate(path):
        return np.append(array, np.zeros(1, array.dtype))
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if path != "model/head/kernel":
        return array.T if path.endswith("kernel") else array
    positions = _positions(array.shape[0], flat)
    return array.reshape(positions, -1, array.shape[1]).transpose(2, 1, 0).reshape(array.shape[1], -1)


def _positions(features: int, flat: Mapping[str, np.ndarray]) -> int:
    """The number of positions, height times width, of the feature map that the head flattens."""
    channels = _channels(flat)
    if features % channels:
        raise UserError(f"the head has {features} inputs; expected a multiple of the {channels} channels")
    return features // channels
