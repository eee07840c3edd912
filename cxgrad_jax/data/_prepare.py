"""Turns archives, image folders and the embedded glyphs into prepared data sets."""

import contextlib
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging

from cxgrad_jax.accounts import accounts_without_names
from cxgrad_jax.arguments import as_path, is_whole
from cxgrad_jax.data import _layout
from cxgrad_jax.data._lock import locked
from cxgrad_jax.data._tfds import require_tfds
from cxgrad_jax.data.datasets import catalogue, image_folder
from cxgrad_jax.data.datasets.facts import Facts, size_text
from cxgrad_jax.errors import UserError, reason

if TYPE_CHECKING:
    from cxgrad_jax.data.datasets.builder import FewShotBuilder

_PathLike = str | os.PathLike[str]


def prepare(
    name: str,
    *,
    data_dir: _PathLike | None = None,
    archives: _PathLike | Sequence[_PathLike] = (),
    source: _PathLike | None = None,
    image_size: int | None = None,
    as_name: str | None = None,
    download: bool = False,
) -> Path:
    """Prepares a data set for ``load``; returns at once if that is done already.

    An ``image_folder`` whose images have changed since (their names, sizes or times) is prepared again. Its images are
    stored as a viewer shows them: turned upright by their EXIF orientation, with transparent parts on white. Published
    data sets keep the pixels of the official code.

    If a preparation is interrupted, even by a kill, it leaves nothing that ``load`` takes for a finished one, and can
    simply be run again. What was prepared before stays until the new images are complete. If several run at the same
    time, one does the work and the others wait for it.

    Args:
      name: one of ``NAMES``.
      data_dir: the folder of prepared data sets. None means ``default_data_dir()``.
      archives: the publisher's archive or archives, if the data set has any (see ``python -m data_prep --list``).
      source: a folder instead of archives. It holds the extracted images of miniImageNet or tieredImageNet or, for
        ``image_folder``, the user's own ``root/{train,val,test}/class/*.jpg`` (or bmp, gif, jpeg, png, webp). A test
        set alone is ``root/test/class/*`` or ``root/class/*``.
      image_size: the height and width to resize to. None means the data set's usual size. A data set may be prepared in
        several sizes.
      as_name: the name by which ``load`` finds the images of an ``image_folder``, of small letters, digits and ``_``.
      download: whether to download the archives (CIFAR-FS, CUB and Omniglot). Their checksums are verified.

    Returns:
      The folder of the prepared data set, which ``tfds.builder_from_directory`` reads, too.

    Raises:
      UserError: an argument, an archive, an image or the data directory cannot be used.
    """
    facts = catalogue.facts(name)
    if not isinstance(archives, str | os.PathLike | Sequence):
        raise UserError(f"archives is {archives!r}; expected a path or a list of paths")
    archives = [archives] if isinstance(archives, str | os.PathLike) else archives
    own_name = _check_arguments(name, image_size, as_name, download)
    if download and (archives or source):
        raise UserError(f"{name} is either downloaded or made from files at hand: give one of the two")
    directory = _layout.location(own_name, image_size, data_dir)
    try:
        str(directory).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the path {directory} is not UTF-8, which tfds needs: choose another data_dir") from error
    try:
        if _is_at_hand(name, own_name, directory, source):  # perhaps on a disk that cannot be written
            return directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.parent / ".lock"):
            _put_back(directory)
            if _is_at_hand(name, own_name, directory, source):  # another process has just done it
                return directory
            if _is_complete(directory):
                logging.warning("%s has changed since it was prepared: preparing it again", source)
            require_tfds()
            paths = [] if download else _sources(name, facts, archives, source)
            fingerprint = image_folder.fingerprint(paths[0]) if name == "image_folder" else None
            # An interrupted preparation may have left these. Nobody else is at work, because the lock is ours.
            for remains in directory.parent.glob("incomplete.*"):
                shutil.rmtree(remains, ignore_errors=True)
            logging.info("Preparing %s in %s", own_name, directory)
            from cxgrad_jax.data.datasets.builder import make_builder

            work = directory.parent / "incomplete.new"  # tfds would refuse to work where a prepared set stands
            new = work / own_name / directory.parent.name / directory.name
            downloads = directory.parent.parent.parent / "downloads"
            try:
                _run(make_builder(name, own_name, new, paths, download, fingerprint), facts, downloads)
                _replace(directory, new)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot prepare {own_name} in {directory}: {error}; $CXGRAD_DATA_DIR, --data_dir or --config.data.dir "
            "names another folder"
        ) from error
    return directory


def _is_at_hand(name: str, own_name: str, directory: Path, source: _PathLike | None) -> bool:
    """Whether just this is prepared already; raises UserError if the name stands for another folder."""
    if not _is_complete(directory):
        return False
    _check_same_source(own_name, directory, source)
    if source is not None and name == "image_folder" and _has_changed(directory, as_path("source", source)):
        return False
    logging.info("%s is prepared already in %s", own_name, directory)
    return True


def _replace(directory: Path, new: Path) -> None:
    """Gives the new folder the name of the old one, which is removed. A program keeps the memory maps that it has."""
    if directory.exists():
        directory.rename(_aside(directory))
    try:
        new.rename(directory)
    finally:
        _put_back(directory)


def _put_back(directory: Path) -> None:
    """Ends a replacement: the old folder is removed, or gets its name back if no new one has it."""
    if directory.exists():
        shutil.rmtree(_aside(directory), ignore_errors=True)
    elif _aside(directory).exists():  # a kill or an error came between the two renames
        _aside(directory).rename(directory)


def _aside(directory: Path) -> Path:
    return directory.with_name(f"replaced.{directory.name}")


def _run(builder: "FewShotBuilder", facts: Facts, downloads: Path) -> None:
    """Runs tfds's preparation, which works in a folder of another name and renames it at the end."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    try:
        # tfds would print that all sizes are unknown.
        with contextlib.redirect_stdout(io.StringIO()), accounts_without_names():
            builder.download_and_prepare(download_dir=downloads, download_config=config)
    except NonMatchingChecksumError as error:  # its message has several lines
        raise UserError(f"the downloaded file is not the publisher's: {reason(error)}") from error
    except (DownloadError, requests.RequestException) as error:
        raise UserError(
            f"{reason(error)}; download it yourself from {facts.origin} and give it with --archive"
        ) from error
    except RuntimeError as error:  # ArrayRecord raises it for a file that it cannot write
        cause, _, where = str(error).partition("; writing ")
        if not where:
            raise
        raise OSError(f"{cause}; writing {where.partition(';')[0]}") from error


def _check_arguments(name: str, image_size: int | None, as_name: str | None, download: bool) -> str:
    """Checks the arguments that need no file, and returns the name to prepare under."""
    if image_size is not None and not (is_whole(image_size) and 1 <= image_size <= 1024):
        raise UserError(f"image_size is {image_size}; expected a whole number, 1 to 1024 pixels")
    facts = catalogue.facts(name)
    if download and not (facts.archives or facts.folder):
        raise UserError(f"{name} needs no download; leave download out (on the command line: --download)")
    if download and not facts.downloadable:
        raise UserError(f"{name} cannot be downloaded without an account: {_needs(name)}")
    if as_name is None:
        return name
    if name != "image_folder":
        raise UserError(f"as_name is {as_name!r}, which is for image_folder; {name} keeps its name")
    if not isinstance(as_name, str) or not _layout.OWN_NAME.fullmatch(as_name) or as_name in catalogue.CATALOGUE:
        raise UserError(
            f"as_name is {as_name!r}; expected small letters, digits and _, and no name of another data set"
        )
    return as_name


def _sources(name: str, facts: Facts, archives: Sequence[_PathLike], source: _PathLike | None) -> list[Path]:
    """The archives or the folder to read; raises UserError if they do not suit the data set."""
    if source is not None and not facts.folder:
        raise UserError(f"{name} is not read from a folder: {_needs(name)}")
    if archives and (source is not None or not facts.archives):
        raise UserError(f"{name} takes no archives here: {_needs(name)}")
    paths = [as_path("archives", path) for path in archives] if source is None else [as_path("source", source)]
    if not paths and (facts.archives or facts.folder):
        raise UserError(_needs(name))
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} does not exist: {_needs(name)}")
    if source is not None and not paths[0].is_dir():
        raise UserError(f"{paths[0]} is not a folder: {_needs(name)}")
    return paths


def _needs(name: str) -> str:
    """A sentence that says what a data set is made from, where that is found, and how it is given."""
    facts = catalogue.facts(name)
    ways = []
    if facts.archives:
        files = " and ".join(f"{archive.name} ({size_text(archive.size)})" for archive in facts.archives)
        ways.append(f"{files} from {facts.origin}, given with --archive")
    if facts.folder:
        ways.append(f"{facts.folder}, given with --source")
    if facts.downloadable:
        ways.append("--download")
    return f"{name} needs {', or '.join(ways)}" if ways else f"{name} needs no archive"


def _is_complete(directory: Path) -> bool:
    try:
        for split in _layout.read_index(directory)["class_sizes"]:
            _layout.open_store(directory, split)
    except Exception:  # damaged files raise exceptions of many kinds
        return False
    return (directory / "dataset_info.json").is_file()


def _has_changed(directory: Path, source: Path) -> bool:
    """Whether the user's folder differs from what was prepared. A folder that is gone has not changed."""
    return source.is_dir() and _layout.read_index(directory).get("fingerprint") != image_folder.fingerprint(source)


def _check_same_source(own_name: str, directory: Path, source: _PathLike | None) -> None:
    """Raises UserError if a name is asked for that stands for another folder already."""
    known = _layout.read_index(directory).get("source")
    if source is not None and known and str(as_path("source", source).resolve()) not in known:
        raise UserError(f"{own_name} is prepared from {known[0]} already: choose another as_name or remove {directory}")
