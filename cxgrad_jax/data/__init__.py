"""Few-shot data sets: prepared once, then read as memory maps of uint8 images grouped by class.

    store = cxgrad_jax.data.load("cifar_fs", "train")

Only preparing needs tensorflow-datasets; loading needs NumPy alone.
"""

from cxgrad_jax.data.catalogue import CATALOGUE
from cxgrad_jax.data.preparation import prepare
from cxgrad_jax.data.prepared import default_data_dir, load
from cxgrad_jax.data.store import SPLITS, ImageStore, with_rotations

NAMES = tuple(CATALOGUE)
"""The names that ``prepare`` takes. ``load`` takes them and those that ``as_name`` gave to the user's own images."""

__all__ = ["NAMES", "SPLITS", "ImageStore", "default_data_dir", "load", "prepare", "with_rotations"]
