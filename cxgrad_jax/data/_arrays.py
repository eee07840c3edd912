"""Image stores from arrays in memory, or from another data set of tfds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax.arguments import as_array, as_path, check_kind, check_whole
from cxgrad_jax.data._store import SPLITS, ImageStore, check_images, offsets_of
from cxgrad_jax.data._tfds import require_tfds
from cxgrad_jax.data.datasets.images import resized_array
from cxgrad_jax.data.datasets.pickles import text
from cxgrad_jax.errors import UserError, reason

# A set has another order in each process, and the parts of text and bytes are not names.
_NO_NAMES = (str, bytes, bytearray, Mapping, set, frozenset)


def from_arrays(
    images: Any, labels: Any, class_names: Sequence[str] | None = None, name: str = "", split: str = "train"
) -> ImageStore:
    """Makes an image store from arrays, as in::

        store = cx.data.from_arrays(images, labels)

    Args:
      images: ``[N, H, W, C]``, uint8 or float in [0, 1], in any order. They are stored in the dtype that they have.
      labels: ``[N]``, any integers or strings.
      class_names: one name for each distinct label, in the order of the sorted labels: a list, a tuple or an array. If
        None, the labels are the names.
      name: the name of the data set in reports and messages.
      split: "train", "val" or "test". The same seed draws other episodes from each.

    Returns:
      A store with the classes in the order of their labels. Within a class, the images keep their order.

    Raises:
      UserError: an array has another shape, dtype or range, or a mask, the names have no order, or the lengths do not
        fit.
    """
    for what, array in (("images", images), ("labels", labels)):
        if isinstance(array, np.ma.MaskedArray):  # NumPy would give what is below the mask
            raise UserError(f"{what} are a masked array; expected a plain one: leave out what is masked")
    images, labels = np.asarray(as_array("images", images)), np.asarray(as_array("labels", labels))
    check_images(images)
    _check_labels(labels, len(images))
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if class_names is not None and (isinstance(class_names, _NO_NAMES) or not isinstance(class_names, Iterable)):
        raise UserError(f"class_names is {class_names!r}; expected a list with one name for each distinct label")
    values, sizes = np.unique(labels, return_counts=True)
    names = tuple(text(value) for value in values) if class_names is None else tuple(map(str, class_names))
    if len(names) != len(values):
        raise UserError(f"class_names has {len(names)} names for {len(values)} distinct labels; expected one for each")
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"class_names holds {twice!r} twice; expected another name for each class")
    if (labels[1:] < labels[:-1]).any():
        images = images[np.argsort(labels, kind="stable")]
    return ImageStore(images, offsets_of(sizes), names, name, split)


def from_tfds(
    builder_or_dir: Any,
    split: str,
    image_key: str = "image",
    label_key: str = "label",
    image_size: int | None = None,
) -> ImageStore:
    """Reads one split of a prepared tfds data set into memory, without TensorFlow, as in::

        store = cx.data.from_tfds("~/tensorflow_datasets/cifar10/3.0.2", "train")

    Args:
      builder_or_dir: a tfds builder, or the folder of a prepared data set, which holds ``dataset_info.json``. Its file
        format must be ``array_record``, because only TensorFlow reads the others.
      split: the split in the notation of tfds, such as "train" or "test[:50%]". The split of the store is the word
        before the bracket. "validation" becomes "val", and a word that is none of the three becomes "train".
      image_key: the feature that holds the images.
      label_key: the feature that holds the integer labels.
      image_size: the height and width to resize to with Pillow's BICUBIC filter. It is needed if images differ in size.

    Returns:
      A store with uint8 images ``[N, H, W, C]``.

    Raises:
      UserError: tfds is not installed, the data set or the size cannot be used, or ``from_arrays`` refuses its images
        or labels.
    """
    if image_size is not None:
        check_whole("image_size", image_size)
    require_tfds()
    import tensorflow_datasets as tfds

    builder: Any = builder_or_dir
    if isinstance(builder_or_dir, str | Path):
        folder = as_path("builder_or_dir", builder_or_dir)
        try:
            builder = tfds.builder_from_directory(str(folder))
        except Exception as error:  # tfds raises errors of many kinds for a folder that it cannot read
            raise UserError(f"{builder_or_dir} is not a prepared tfds data set ({reason(error)[:200]})") from error
    check_kind("builder_or_dir", builder, ("as_data_source", "info"), "a tfds builder or the folder of a data set")
    try:
        records = builder.as_data_source(split)
    except Exception as error:
        raise UserError(
            f"tfds cannot read split {split!r} of {builder.name} ({reason(error)[:200]}); expected one of "
            f"{', '.join(builder.info.splits)}, prepared with file_format='array_record'"
        ) from error
    known = sorted(builder.info.features)
    for key in (image_key, label_key):
        if key not in known:
            raise UserError(f"{builder.name} has no feature {key!r}; expected one of {', '.join(known)}")
    images, labels = [], []
    for record in records:
        image = np.asarray(record[image_key])
        images.append(image if image_size is None else resized_array(image, image_size))
        labels.append(record[label_key])
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise UserError(f"the images of {builder.name} have {len(shapes)} shapes; give image_size to resize them")
    if not images:
        raise UserError(f"split {split!r} of {builder.name} has no images")
    labels = np.asarray(labels)
    names = getattr(builder.info.features[label_key], "names", None)
    if names is not None and labels.dtype.kind in "iu":
        if np.any(labels < 0):
            raise UserError(
                f"split {split!r} of {builder.name} has {np.sum(labels < 0)} images with the label {labels.min()}, "
                "which means none; expected a split whose images all have a class"
            )
        names = [names[value] for value in np.unique(labels)]
    word = {"validation": "val"}.get(split.partition("[")[0], split.partition("[")[0])
    return from_arrays(np.stack(images), labels, names, builder.name, word if word in SPLITS else "train")


def _check_labels(labels: np.ndarray, num_images: int) -> None:
    if labels.ndim == 2:
        raise UserError(f"labels have shape {list(labels.shape)}; expected [N]; labels.argmax(1) if one-hot")
    if labels.ndim != 1:
        raise UserError(f"labels have shape {list(labels.shape)}; expected [N]")
    if len(labels) != num_images:
        raise UserError(f"there are {num_images} images and {len(labels)} labels; expected one label for each image")
    strings = labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels)
    if labels.dtype.kind not in "iuUS" and not strings:
        raise UserError(f"labels have dtype {labels.dtype}; expected integers or strings")
