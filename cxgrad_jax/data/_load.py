"""Opens the images of a prepared data set."""

import os

from cxgrad_jax.data import _layout
from cxgrad_jax.data._prepare import prepare
from cxgrad_jax.data._store import SPLITS, ImageStore
from cxgrad_jax.data.datasets import catalogue
from cxgrad_jax.errors import UserError


def load(
    name: str, split: str, *, data_dir: str | os.PathLike[str] | None = None, image_size: int | None = None
) -> ImageStore:
    """Opens one split of a prepared data set.

    The order is fixed: classes are sorted by their names, and the images of a class by their file names. ``glyphs``
    needs no archive and is prepared on its first use.

    Args:
      name: one of ``NAMES``, or the name that ``prepare("image_folder", as_name=...)`` gave to the user's own images.
      split: "train", "val" or "test". Their classes are disjoint.
      data_dir: the folder of prepared data sets. None means ``default_data_dir()``.
      image_size: the height and width that were prepared. None means the data set's usual size.

    Returns:
      An ImageStore whose images are a read-only memory map, uint8 ``[N, image_size, image_size, channels]``.

    Raises:
      UserError: the split or the data set is unknown, not prepared at this size, or damaged. The line has the command
        that mends this.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    directory = _layout.location(name, image_size, data_dir)
    if name not in catalogue.CATALOGUE and not directory.parent.parent.is_dir():
        catalogue.facts(name)  # raises, and says what names there are
    command = _layout.command(name, image_size, data_dir)
    if not directory.is_dir():
        if name != "glyphs":
            sizes = sorted(
                path.parent.parent.name for path in directory.parent.parent.glob(f"*/{directory.name}/{_layout.INDEX}")
            )
            also = f" (there are sizes {', '.join(sizes)})" if sizes else ""
            raise UserError(f"{name} is not prepared in {directory}{also}: run `{command}`")
        prepare(name, data_dir=data_dir, image_size=image_size)
    try:
        splits = _layout.read_index(directory)["class_sizes"]
        if split in splits:
            return _layout.open_store(directory, split, name)
    except Exception as error:  # damaged files raise exceptions of many kinds
        raise UserError(f"{directory} is damaged ({error}): run `{command}` to prepare it again") from error
    raise UserError(
        f"{name} has no {split} split, only {', '.join(splits)}: it was prepared from a folder without {split}/; "
        f"prepare one that has {', '.join(SPLITS)}, or name other data"
    )
