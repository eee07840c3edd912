"""Few-shot data sets: prepared once, then read as memory maps of uint8 images grouped by class.

Either of::

    store = cxgrad_jax.data.load("cifar_fs", "train")
    store = cxgrad_jax.data.from_arrays(images, labels)

``load`` needs NumPy and Pillow alone; ``prepare`` and ``from_tfds`` need tensorflow-datasets (without TensorFlow).
"""

from cxgrad_jax.data._arrays import from_arrays, from_tfds
from cxgrad_jax.data._layout import default_data_dir
from cxgrad_jax.data._load import load
from cxgrad_jax.data._prepare import prepare
from cxgrad_jax.data._store import SPLITS, ClassSplits, ImageStore, split_classes, with_rotations
from cxgrad_jax.data.datasets.catalogue import CATALOGUE

NAMES = tuple(CATALOGUE)
"""The names that ``prepare`` takes. ``load`` takes them and those that ``as_name`` gave to the user's own images."""

__all__ = [
    "NAMES", "SPLITS", "ClassSplits", "ImageStore", "default_data_dir", "from_arrays", "from_tfds", "load", "prepare",
    "split_classes", "with_rotations",
]  # fmt: skip
