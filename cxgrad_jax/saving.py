"""Trained learners as files."""

import hashlib
from typing import Any

import jax
import numpy as np


def params_sha256(params: Any) -> str:
    """Digest of meta-parameters: SHA-256 over path, dtype, shape and bytes of every leaf, in the order of the paths."""
    digest = hashlib.sha256()
    for path, leaf in sorted((jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
