"""The photos that a command line or a folder stands for."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cxgrad_jax.arguments import as_path
from cxgrad_jax.data.datasets.image_folder import is_image
from cxgrad_jax.data.datasets.images import SUFFIXES
from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import refuse_forbidden

PathLike = str | os.PathLike[str]


class LabelledPhotos(NamedTuple):
    """Photos in folders of classes.

    Attributes:
      paths: the paths of the photos, class by class.
      labels: the labels of the photos, as positions in ``class_names``.
      class_names: the names of the folders, sorted.
      left_out: the other files in the folder, except hidden ones.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    left_out: tuple[Path, ...]


def labelled_photos(folder: PathLike, least: int = 2) -> LabelledPhotos:
    """Finds the photos ``folder/CLASS/*.jpg`` (or bmp, gif, jpeg, png, webp, in capitals or not).

    Args:
      folder: the folder.
      least: the least number of classes.

    Raises:
      UserError: there is no such folder, it has too few classes, or a class has no photo.
    """
    root = as_path("folder", folder)
    layout = "expected PHOTOS/CLASS/*.jpg, one folder for each class"
    refuse_forbidden(root)
    if not os.path.isdir(root):
        raise UserError(f"{root} is {'not a folder' if os.path.exists(root) else 'not there'}; {layout}")
    for path in _entries(root):
        refuse_forbidden(path)
    classes = [path for path in _entries(root) if path.is_dir()]
    paths, labels, left_out = [], [], [path for path in _entries(root) if not path.is_dir()]
    for label, directory in enumerate(classes):
        entries = _entries(directory)
        images = [path for path in entries if is_image(path.name) and not os.path.isdir(path)]
        if not images:
            raise UserError(f"{directory} holds no photo ({', '.join(SUFFIXES)}); add some or remove it")
        left_out += sorted(set(entries) - set(images))
        paths += images
        labels += [label] * len(images)
    if len(classes) < least:
        found = f"one class, {classes[0].name}" if classes else "no class"
        raise UserError(f"{root} holds {found}; {layout}, and at least {least} of them")
    return LabelledPhotos(tuple(paths), tuple(labels), tuple(path.name for path in classes), tuple(left_out))


def photos_in(places: PathLike | Iterable[PathLike]) -> list[Path]:
    """The photos that files and folders stand for, in this order.

    Args:
      places: one file or folder, or several. A folder stands for the photos in it and in the folders below it, sorted.

    Raises:
      UserError: a file or folder does not exist, or a folder holds no photo.
    """
    return photos_and_left_out(places)[0]


def photos_and_left_out(places: PathLike | Iterable[PathLike]) -> tuple[list[Path], list[Path]]:
    """The photos of ``photos_in``, and the other files in the folders, except hidden ones.

    Raises:
      UserError: a file or folder does not exist, or a folder holds no photo.
    """
    found: list[Path] = []
    left_out: list[Path] = []
    for path in paths_of(places):
        if os.path.isdir(path):
            files = sorted(_below(path))
            inside = [each for each in files if is_image(each.name)]
            if not inside:
                raise UserError(f"{path} holds no photo ({', '.join(SUFFIXES)})")
            found += inside
            left_out += [each for each in files if not is_image(each.name)]
        elif os.path.exists(path):
            found.append(path)
        else:
            refuse_forbidden(path)
            raise UserError(f"{path} is not there; expected a photo or a folder of photos")
    return found, left_out


def paths_of(places: PathLike | Iterable[PathLike]) -> list[Path]:
    """The paths that one place or several name.

    Raises:
      UserError: one is not a path.
    """
    if isinstance(places, str | bytes | os.PathLike) or not isinstance(places, Iterable):
        places = [places]
    return [as_path("the place of photos", place) for place in places]


def left_out_line(paths: Sequence[Path], where: str = " in the folder of a class") -> str:
    """A line about files and folders that do not count as photos. ``where`` says where photos are expected."""
    folders = [path for path in paths if os.path.isdir(path)]
    files = [path for path in paths if path not in folders]
    parts = []
    if files:
        some = ", ".join(path.name for path in files[:3]) + (", ..." if len(files) > 3 else "")
        parts.append(f"{len(files)} files are left out ({some}); photos are {', '.join(SUFFIXES)}{where}")
    if folders:
        number = sum(is_image(name) for folder in folders for _, _, names in os.walk(folder) for name in names)
        some = ", ".join(f"{path.parent.name}/{path.name}" for path in folders[:3]) + (", ..." if folders[3:] else "")
        one = len(folders) == 1
        which = f"the folder {some}" if one else f"{len(folders)} folders ({some})"
        are = "is" if one else "are"
        parts.append(f"{which} with {number} photos {are} left out; photos must be right in the folder of a class")
    return "; ".join(parts)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {reason(error)}") from None


def _below(folder: Path) -> Iterator[Path]:
    """The files in ``folder`` and in the folders below it, without hidden ones.

    Links to folders are followed when everything else is found. No folder is visited twice, so a link may lead back.
    """

    def refuse(error):
        raise UserError(f"{error.filename} cannot be read: {reason(error)}") from None

    seen, waiting = set(), [folder]
    while waiting:
        for place, folders, files in os.walk(waiting.pop(0), onerror=refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if os.path.realpath(place) in seen:
                folders.clear()
                continue
            seen.add(os.path.realpath(place))
            waiting += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            yield from (Path(place, name) for name in files if not name.startswith("."))
