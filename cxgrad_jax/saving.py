"""Trained learners as files: one safetensors file with a readable header.

    cxgrad_jax.save("learner.safetensors", learner, params)
    learner, params = cxgrad_jax.load("learner.safetensors")
    learner, params = cxgrad_jax.load("classifier_baseline_cifar_fs")  # weights that this package contains

The file holds every array of the meta-parameters by its path, such as ``"model/block_0/conv/kernel"``. Its header has
``"format"``, ``"learner"`` (the learner's ``spec`` as JSON), ``"sha256"`` (``params_sha256`` of the arrays) and, if it
is known, ``"image_size"``.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from cxgrad_jax.arguments import as_path, check_learner, check_whole
from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_whole
from cxgrad_jax.learners import MetaLearner, from_spec, merge
from cxgrad_jax.weight_files import find

# What a file is, by the field of its header that only such files have.
_KINDS = {
    "format": "a file of cx.save, which cx.load reads and photos fit takes as backbone (--backbone)",
    "photos": "a classifier of photos, which cx.photos.load reads",
    "export": "an exported program, which cx.load_exported reads",
}
_FOREIGN = "a safetensors file of another program"
FORMAT = "1"  # of the header; a change that older files cannot follow raises it


def save(
    path: str | os.PathLike[str], learner: MetaLearner | None, params: Any, *, image_size: int | None = None
) -> None:
    """Saves a learner and its meta-parameters, whole or not at all.

    Args:
      path: the file, whose name should end in ``.safetensors``.
      learner: the learner, which the header describes. None saves the parameters alone, and ``load`` then needs the
        learner.
      params: the meta-parameters, a nested dict of arrays. ``load`` gives float64 as float32.
      image_size: the height and width of the images that it was trained on, in pixels. A classifier of photos resizes
        them to it.

    Raises:
      UserError: ``path``, ``learner`` or ``image_size`` has the wrong type, a part of the learner is not this package's
        and cannot be described, a leaf is not an array of numbers or has whole numbers that int32 does not, a dict in
        ``params`` is empty, or the file cannot be written.
    """
    path = as_path("path", path)
    if learner is not None:
        check_learner(learner)
    spec = learner.spec if learner else {}
    if learner and (not spec or spec["undescribed"]):
        part = f"{spec['undescribed'][0]} is" if spec else "the learner is"
        raise UserError(
            f"{part} not part of cxgrad_jax, and a file never names code to run; save the parameters alone with "
            "cx.save(path, None, params), and read them with cx.load(path, learner=...)"
        )
    if image_size is not None:
        check_whole("image_size", image_size)
    arrays = arrays_of(params)
    _refuse_lost(params)
    header = {"format": FORMAT, "learner": json.dumps(spec), "sha256": params_sha256(merge(arrays))}
    write_arrays(path, arrays, header | ({} if image_size is None else {"image_size": str(image_size)}))


def arrays_of(params: Any) -> dict[str, np.ndarray]:
    """The arrays of meta-parameters by path, as a file holds them.

    Raises:
      UserError: ``params`` is not a nested dict with names as keys, or a leaf is not an array of numbers.
    """
    if not isinstance(params, Mapping):
        raise UserError(f"params is of type {type(params).__name__}; expected a nested dict of arrays")
    arrays = {}
    for path, leaf in jax.tree.leaves_with_path(params, is_leaf=lambda leaf: leaf is None):
        names = [getattr(key, "key", None) for key in path]
        where = "/".join(str(getattr(key, "key", key)) for key in path)
        if not all(isinstance(name, str) and name.isprintable() and "/" not in name for name in names):
            raise UserError(f"the parameter {where} is not in a nested dict whose keys are strings without a slash")
        if where == "__metadata__":
            raise UserError("a parameter is called '__metadata__', which safetensors keeps for itself; rename it")
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int):
            raise UserError(f"the parameter {where} is of type {type(leaf).__name__}; expected an array of numbers")
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise UserError(f"the parameter {where} is a key of JAX; expected an array of numbers")
        array = np.asarray(leaf, order="C")
        array = array.astype(array.dtype.newbyteorder("="), copy=False)  # files know no other order of bytes
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            remedy = "; convert it to float32" if jnp.issubdtype(array.dtype, jnp.floating) else ""
            raise UserError(f"the parameter {where} has dtype {array.dtype}; expected an array of numbers{remedy}")
        arrays[where] = array
    return arrays


def _refuse_lost(params: Mapping[str, Any], where: str = "") -> None:
    """Refuses what would not come back: an empty dict, and whole numbers that JAX's integers do not have."""
    for name, value in params.items():
        path = f"{where}{name}"
        if isinstance(value, Mapping):
            if not value:
                raise UserError(f"the parameter {path} is an empty dict, which a file cannot hold; remove it")
            _refuse_lost(value, f"{path}/")
            continue
        array = np.asarray(value)
        kept = jax.dtypes.canonicalize_dtype(array.dtype)
        if array.dtype.kind in "iu" and (array.astype(kept) != array).any():
            raise UserError(
                f"the parameter {path} has dtype {array.dtype} and numbers that do not fit into {kept}, the dtype "
                "that cx.load returns; keep them as floats"
            )


def write_arrays(path: Path, arrays: dict[str, np.ndarray], header: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all. The same content gives the same bytes.

    Args:
      path: the file.
      arrays: contiguous arrays of any shape, by name.
      header: lines of text, by name.

    Raises:
      UserError: the file cannot be written.
    """
    file = safetensors.numpy.save(arrays, metadata=header)
    end = 8 + int.from_bytes(file[:8], "little")
    # The format's own writer puts the lines of the header in another order each time.
    told = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    write_whole(path, len(told).to_bytes(8, "little") + told + file[end:])


def load(name_or_path: str | os.PathLike[str], learner: MetaLearner | None = None) -> tuple[MetaLearner, Any]:
    """Reads what ``save`` wrote. Nothing that the file names is imported.

    Args:
      name_or_path: a file, the name of weights that the package contains, such as ``"classifier_baseline_cifar_fs"``,
        or a name on the Hugging Face Hub. There ``hf://OWNER/NAME`` is the file ``model.safetensors`` of that
        repository, and ``hf://OWNER/NAME/FILE.safetensors`` is another file. Only the Hub needs a network, and
        ``pip install 'cxgrad_jax[hub]'``.
      learner: the learner, in place of the one that the header describes.

    Returns:
      The learner and its meta-parameters, as arrays of JAX: float64 becomes float32, and int64 becomes int32, unless
      ``jax_enable_x64`` is set.

    Raises:
      UserError: ``name_or_path`` is neither a string nor a path, there is no such file, it cannot be fetched, ``save``
        did not write it, it is damaged, or it describes no learner and none is given.
    """
    path = find(name_or_path)
    header, arrays = read_arrays(path, "cx.save", "format", FORMAT)
    try:
        params = jax.tree.map(jnp.asarray, merge(arrays))
        spec = json.loads(header.get("learner", "{}"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}); get it again") from None
    if params_sha256(merge(arrays)) != header["sha256"]:
        raise UserError(f"{path} is damaged (its arrays are not those that were saved); get it again")
    if learner is not None:
        check_learner(learner)
    else:
        if not spec:
            raise UserError(f"{path} describes no learner; give it: cx.load(path, learner=...)")
        try:
            learner = from_spec(spec)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); get it again") from None
    return learner, params


def image_size_of(name_or_path: str | os.PathLike[str]) -> int | None:
    """The ``image_size`` that ``save`` wrote into a file that ``load`` reads, or None if it wrote none."""
    path = find(name_or_path)
    text = read_arrays(path, "cx.save", "format", FORMAT)[0].get("image_size")
    if text is not None and not (text.isdecimal() and int(text)):
        raise UserError(f"{path} is damaged (its image_size is {text!r}); get it again")
    return None if text is None else int(text)


def read_arrays(path: Path, writer: str, kind: str, version: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Reads the header and the arrays of a safetensors file.

    Args:
      path: the file.
      writer: the function whose file is expected, for the messages.
      kind: the field of the header that holds the version of such files.
      version: the version that can be read.

    Raises:
      UserError: there is no such file, or it has another kind or version.
    """
    try:
        if not os.path.isfile(path) and os.path.exists(path):  # opening a pipe would wait for ever
            raise UserError(f"{path} is not a file; expected one that {writer} wrote")
        path.open("rb").close()  # safetensors calls a file missing that may not be read
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a file that {writer} wrote") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    try:
        with safetensors.safe_open(path, "np") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        # AttributeError: NumPy has no such dtype, as of 8-bit floats
        raise UserError(f"{path} cannot be read as a safetensors file ({reason(error)})") from None
    if kind not in header or "sha256" not in header:
        what = next((told for own, told in _KINDS.items() if own in header and "sha256" in header), _FOREIGN)
        raise UserError(f"{path} is {what}; expected one that {writer} wrote")
    if header[kind] != version:
        raise UserError(f"{path} has format {header[kind]}; this version reads {version}: update cxgrad_jax")
    return header, arrays


def params_sha256(params: Any) -> str:
    """SHA-256 of meta-parameters, over path, dtype, shape and bytes of every leaf in the order of the paths."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)):
        array = np.asarray(leaf, order="C")
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
