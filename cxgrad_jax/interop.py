"""Official PyTorch weights, in and out.

The official codes (CxGrad's, and ALFA's ResNet-12) store convolutions as OIHW, linear weights as ``(out, in)`` and
flatten features from ``(C, H, W)``; here they are HWIO, ``(in, out)`` and ``(H, W, C)``. Nothing else differs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cxgrad_jax.errors import UserError

LEARNERS = ("cxgrad", "maml")

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
_MODULES = {
    f"classifier.layer_dict.{official.format(block)}": f"model/block_{block}/{ours}"
    for block in range(4)
    for official, ours in _BLOCK_MODULES.items()
} | {"gamma_generator.0": "generator/hidden", "gamma_generator.2": "generator/output"}

_TO_PATH = {"classifier.layer_dict.linear.weights": "model/head/kernel"}
_TO_PATH["classifier.layer_dict.linear.bias"] = "model/head/bias"
for _official, _ours in _MODULES.items():
    _TO_PATH[f"{_official}.weight"] = f"{_ours}/{'scale' if 'norm' in _ours else 'kernel'}"
    _TO_PATH[f"{_official}.bias"] = f"{_ours}/bias"
_TO_NAME = {path: name for name, path in _TO_PATH.items()}


def from_official(arrays: Mapping[str, Any], learner: str) -> dict:
    """Meta-parameters from the arrays of an official state dict.

    Args:
      arrays: official parameter names to arrays, OIHW and ``(out, in)``, such as
        ``"classifier.layer_dict.conv0.conv.weight" [48, 3, 3, 3]``. Dtypes are kept.
      learner: ``"cxgrad"`` (the generator ``gamma_generator.*`` must be there) or ``"maml"`` (it must not).

    Returns:
      The pytree that ``learner.init`` makes for the same model.

    Raises:
      UserError: an unknown learner or name, or a missing, surplus or misshaped array.
    """
    _check_learner(learner)
    flat: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name not in _TO_PATH:
            raise UserError(
                f"{name!r} is no parameter of the official {learner} code; expected names such as "
                "'classifier.layer_dict.conv0.conv.weight'"
            )
        flat[_TO_PATH[name]] = np.asarray(array)
    _check_complete(flat, learner)
    return unflatten_dict({path: _convert(path, array, flat) for path, array in flat.items()}, sep="/")


def to_official(params: Any, learner: str) -> dict[str, np.ndarray]:
    """The inverse of ``from_official``: official names to numpy arrays. Works on a gradient pytree too.

    Raises:
      UserError: an unknown learner, or a parameter of a model that the official code does not have.
    """
    _check_learner(learner)
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(params, sep="/").items()}
    foreign = sorted(flat.keys() - _TO_NAME.keys())
    if foreign:
        raise UserError(f"parameter {foreign[0]!r} has no name in the official code; only Conv4's and ResNet12's have")
    _check_complete(flat, learner)
    return {_TO_NAME[path]: _convert_back(path, array, flat) for path, array in flat.items()}


def load_official(path: str | Path, learner: str) -> dict:
    """Meta-parameters from an official checkpoint file (``saved_models/train_model_N``), read as weights only.

    Needs the ``torch`` extra. Code in the file is never run: a file that holds anything but tensors and plain values
    is refused. The official file keeps the state dict under ``"network"``, beside accuracies that are NumPy scalars;
    a bare state dict is read as well.

    Raises:
      UserError: PyTorch is missing, no such file, no checkpoint, learned inner rates, or as ``from_official``.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError("reading an official checkpoint needs PyTorch: pip install 'cxgrad_jax[torch]'") from None
    if not Path(path).is_file():
        raise UserError(f"{path} is no file; expected an official checkpoint such as saved_models/train_model_latest")
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
    # The harness stores rates by tensor and step also where all are constant. Learned ones differ, if only from the
    # last, which no step uses.
    learned = [name for name, array in arrays.items() if "inner_loop_optimizer" in name and np.ptp(array) > 0]
    if learned:
        raise UserError(f"{path} has learned inner rates ({learned[0]!r}), which {learner} here does not have")
    # Running statistics are stored but never read: every pass normalises by its own.
    unused = re.compile(r"running_(mean|var)|num_batches_tracked|inner_loop_optimizer")
    return from_official({name: array for name, array in arrays.items() if not unused.search(name)}, learner)


def _check_learner(learner: str) -> None:
    if learner not in LEARNERS:
        raise UserError(f"learner {learner!r} has no official format here; expected one of {', '.join(LEARNERS)}")


def _check_complete(flat: Mapping[str, np.ndarray], learner: str) -> None:
    """Refuses an incomplete set of parameters: the names present tell which network it must be."""
    residual = any("shortcut" in path for path in flat)
    modules = [ours for official, ours in _BLOCK_MODULES.items() if official.startswith("layer") == residual]
    expected = {"model/head/kernel", "model/head/bias"}
    for module in (f"model/block_{block}/{module}" for block in range(4) for module in modules):
        expected |= {f"{module}/scale", f"{module}/bias"} if "norm" in module else {f"{module}/kernel"}
    if learner == "cxgrad":
        expected |= {path for path in _TO_NAME if path.startswith("generator/")}
    missing = sorted(expected - flat.keys())
    if missing:
        raise UserError(f"{_TO_NAME[missing[0]]!r} is missing; is it a complete {learner} checkpoint?")
    biases = set() if residual else {f"model/block_{block}/conv/bias" for block in range(4)}
    surplus = sorted(flat.keys() - expected - biases)
    if surplus:
        raise UserError(f"{_TO_NAME[surplus[0]]!r} does not belong to {learner} on this network")
    for path, array in flat.items():
        rank = (4 if "conv" in path else 2) if path.endswith("kernel") else 1
        if array.ndim != rank:
            raise UserError(f"{_TO_NAME[path]!r} has shape {array.shape}; expected {rank} axes")


def _channels(flat: Mapping[str, np.ndarray]) -> int:
    """Channels of the features that the head sees: those of the last normalisation."""
    return next(flat[path] for path in ("model/block_3/norm/scale", "model/block_3/norm_2/scale") if path in flat).size


def _convert(path: str, array: np.ndarray, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if path != "model/head/kernel":
        return array.T
    side = _side(array.shape[1], flat)
    return array.reshape(len(array), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(array))


def _convert_back(path: str, array: np.ndarray, flat: Mapping[str, np.ndarray]) -> np.ndarray:
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if path != "model/head/kernel":
        return array.T
    side = _side(array.shape[0], flat)
    return array.reshape(side, side, -1, array.shape[1]).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)


def _side(features: int, flat: Mapping[str, np.ndarray]) -> int:
    """Height and width of the square feature map that the head flattens."""
    channels = _channels(flat)
    side = round((features / channels) ** 0.5)
    if side * side * channels != features:
        raise UserError(f"the head has {features} inputs; expected {channels} channels times a square of positions")
    return side
