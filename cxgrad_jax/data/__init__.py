"""Few-shot data sets. They are prepared once, and then read as memory maps of uint8 images grouped by class.

A store comes from a prepared data set or from arrays::

    store = cxgrad_jax.data.load("cifar_fs", "train")
    store = cxgrad_jax.data.from_arrays(images, labels)

``load`` needs only NumPy and Pillow. ``prepare`` and ``from_tfds`` need tensorflow-datasets (without TensorFlow).
"""

from cxgrad_jax.data._arrays import from_arrays, from_tfds
from cxgrad_jax.data._layout import default_data_dir
from cxgrad_jax.data._load import load
from cxgrad_jax.data._prepare import prepare
from cxgrad_jax.data._store import SPLITS, ClassSplits, ImageStore, split_classes, with_rotations
from cxgrad_jax.data.datasets.catalogue import CATALOGUE

NAMES = tuple(CATALOGUE)
"""The names that ``prepare`` takes. ``load`` also takes those that ``as_name`` gave to the user's own images."""

__all__ = [
    "NAMES", "SPLITS", "ClassSplits", "ImageStore", "default_data_dir", "from_arrays", "from_tfds", "load", "prepare",
    "split_classes", "with_rotations",
]  # fmt: skip
