"""Few-shot data sets: prepared once, then read as memory maps of uint8 images grouped by class.

    store = cxgrad_jax.data.load("cifar_fs", "train")

Only preparing needs tensorflow-datasets; loading needs NumPy alone.
"""

from cxgrad_jax.data._load import default_data_dir, load
from cxgrad_jax.data._prepare import prepare
from cxgrad_jax.data._store import SPLITS, ImageStore, with_rotations
from cxgrad_jax.data.datasets.catalogue import CATALOGUE

NAMES = tuple(CATALOGUE)
"""The names that ``prepare`` takes. ``load`` takes them and those that ``as_name`` gave to the user's own images."""

__all__ = ["NAMES", "SPLITS", "ImageStore", "default_data_dir", "load", "prepare", "with_rotations"]
