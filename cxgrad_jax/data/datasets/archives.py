"""Zips, tars and folders in one form: a mapping from a file's name to a function that reads its bytes.

Nothing is ever extracted by a path that an archive names, so no archive can write outside of the data directory.
"""

import bz2
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from absl import logging
from tqdm.auto import tqdm

from cxgrad_jax.data.datasets.facts import Facts
from cxgrad_jax.errors import UserError, reason

IMAGE_BYTES = 100_000_000
"""The largest image file that is read."""

UNPACKED_BYTES, UNPACKED_FACTOR = 4 << 30, 20
"""A compressed file may unpack to this many bytes, or to this many times its size, whichever is more."""

_CHUNK = 1 << 20
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": functools.partial(lzma.open, format=lzma.FORMAT_XZ),
}


@dataclasses.dataclass(frozen=True)
class Member:
    """A file of an archive or a folder. Calling it reads the bytes of an image.

    Attributes:
      name: its name in messages.
      size: the number of its bytes, unpacked.
      open: a function that gives a binary stream, for files larger than an image.
    """

    name: str
    size: int
    open: Callable[[], BinaryIO]

    def __call__(self) -> bytes:
        if self.size > IMAGE_BYTES:
            raise UserError(f"{self.name} has {self.size:,} bytes; expected an image of at most {IMAGE_BYTES:,}")
        with damage_told(self.name), self.open() as file:
            data = file.read(self.size)
        if len(data) != self.size:
            raise UserError(f"{self.name} is cut off: {len(data):,} of its {self.size:,} bytes are there; get it again")
        return data


Files = dict[str, Member]

Index = dict[str, dict[str, dict[str, Callable[[], Any]]]]
"""By split, class name and file name: a function that reads an image as its file's bytes or as uint8 pixels."""


def open_files(path: Path, stack: contextlib.ExitStack, scratch: Path) -> Files:
    """Lists the files of a zip, of a tar (plain, gz, bz2 or xz), of a folder, or of a pickle, which is one file.

    Args:
      path: the archive, folder or pickle.
      stack: the stack that closes the open files, once no function of the result is needed any more.
      scratch: a folder on a disk with room for the content of a compressed tar. The content is first unpacked into a
        nameless temporary file, because its files can then be read in any order. This also checks all of it.

    Returns:
      A mapping from each file's name in the archive, with "/" between folders, to a function that reads it.

    Raises:
      UserError: there is no such file, it is not an archive, or it is damaged. The functions raise it, too.
    """
    if path.is_dir():
        return folder_files(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected an archive or a folder")
    if path.suffix in (".pkl", ".pickle"):
        return {path.name: Member(str(path), path.stat().st_size, functools.partial(path.open, "rb"))}
    with damage_told(path):
        with path.open("rb") as file:
            start = file.read(512)
        if start.lstrip()[:5].lower() in (b"<html", b"<!doc"):
            raise UserError(f"{path} is a web page, as some links give in place of the file: download the file itself")
        if zipfile.is_zipfile(path):
            return _zip_files(stack.enter_context(zipfile.ZipFile(path)))
        if start.startswith(b"PK"):
            raise zipfile.BadZipFile("the end of the zip is missing")
        for magic, opener in _OPENERS.items():
            if start.startswith(magic):
                unpacked = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
                _unpack(path, opener, cast(BinaryIO, unpacked))
                return tar_files(cast(BinaryIO, unpacked), str(path))
        return tar_files(stack.enter_context(path.open("rb")), str(path))


def _tell_same(folder: Path, first: Path) -> None:
    logging.warning("%s is passed over: it is the same folder as %s", folder, first)


def folder_files(root: Path, tell_same: Callable[[Path, Path], None] = _tell_same) -> Files:
    """Lists the files below a folder, and its empty folders by names that end in "/".

    Links are followed when everything else is found. No folder is read twice, so that the walk always ends.

    Args:
      root: the folder.
      tell_same: a function that is called with a folder that is passed over, and with the place where it was read.
    """
    files: Files = {}
    seen: dict[tuple[int, int], Path] = {}
    folders, links = [(root, "")], []
    while folders or links:
        folder, prefix = (folders or links).pop()
        try:
            status = folder.stat()
            first = seen.setdefault((status.st_dev, status.st_ino), folder)
            if first != folder:
                tell_same(folder, first)
                continue
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise UserError(f"the folder {folder} cannot be read ({error.strerror})") from error
        if not names and prefix:
            files[prefix] = Member(str(folder), 0, functools.partial(_refuse, folder))
        for name in names:
            path = folder / name
            if path.is_dir():
                (links if path.is_symlink() else folders).append((path, f"{prefix}{name}/"))
            elif path.is_file():
                files[prefix + name] = Member(str(path), path.stat().st_size, functools.partial(path.open, "rb"))
            else:  # opening a pipe would wait for ever
                files[prefix + name] = Member(str(path), 0, functools.partial(_refuse, path))
    return files


def tar_files(stream: BinaryIO, name: str) -> Files:
    """Lists the files of an uncompressed tar.

    Args:
      stream: the tar, which may itself be a file of another tar. It must stay open as long as the files are read.
      name: the name of the tar in messages.
    """
    files: Files = {}
    end, position = stream.seek(0, os.SEEK_END), -1
    stream.seek(0)
    with damage_told(name), tarfile.TarFile(fileobj=stream) as tar:
        while (member := tar.next()) is not None:
            if member.offset_data + member.size > end:
                raise UserError(f"{name} is cut off in {member.name}; the archive is incomplete, get it again")
            if member.size < 0 or member.offset_data <= position:  # it would be read for ever
                raise tarfile.TarError("its headers are damaged")
            position = member.offset_data
            if member.isreg() and not member.issparse():
                opener = functools.partial(_section, stream, member.offset_data, member.size)
                files[member.name.removeprefix("./")] = Member(f"{name}: {member.name}", member.size, opener)
            # tarfile would keep a kilobyte for each of ImageNet's million files.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
    return files


@contextlib.contextmanager
def damage_told(name: str | Path) -> Iterator[None]:
    """A context that turns the exceptions of an unreadable archive into a UserError with its name and the reason."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:  # gzip and bz2 find damage
            raise _damaged(name, error) from error
        raise UserError(f"{name} cannot be read ({error.strerror})") from error
    except RuntimeError as error:  # zipfile finds a password or a compression that it does not know
        raise UserError(f"{name} cannot be read ({error}); expected a plain zip without password") from error
    except Exception as error:  # a damaged archive raises exceptions of many kinds
        raise _damaged(name, error) from error


def check_published(path: Path, facts: Facts) -> None:
    """Warns if a local archive is not the publisher's file, bit for bit. Its layout is checked in any case."""
    expected = {archive.sha256 for archive in facts.archives if archive.sha256}
    if not expected or not path.is_file() or any(path.name in files for files in facts.also):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in expected:
        logging.warning("%s is not the publisher's file (its sha256 is %s): only its layout is checked", path, digest)


def require(found: dict[str, Callable[[], Any]], expected: int, class_name: str, where: str) -> None:
    """Raises UserError unless a class has as many images as its publisher says."""
    if len(found) != expected:
        raise UserError(
            f"class {class_name} has {len(found)} images; expected {expected}: wrong or incomplete archive; {where}"
        )


def _damaged(name: str | Path, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read as a complete zip or tar archive ({reason(error)}); get it again")


def _check_unpacked(name: str | Path, size: int, packed: int) -> None:
    limit = max(UNPACKED_BYTES, UNPACKED_FACTOR * packed)
    if size > limit:
        raise UserError(f"{name} unpacks to more than {limit:,} bytes, which no data set does: use another archive")


def _zip_files(archive: zipfile.ZipFile) -> Files:
    files: Files = {}
    for info in archive.infolist():
        if not info.is_dir():
            name = f"{archive.filename}: {info.filename}"
            _check_unpacked(name, info.file_size, info.compress_size)
            files[info.filename] = Member(name, info.file_size, functools.partial(archive.open, info))  # pyright: ignore
    return files


def _unpack(path: Path, opener: Callable[[Path], Any], unpacked: BinaryIO) -> None:
    """Unpacks a compressed tar into an open file."""
    packed = path.stat().st_size
    with opener(path) as file, tqdm(desc=f"unpacking {path.name}", unit="B", unit_scale=True, disable=None) as progress:
        while chunk := file.read(_CHUNK):
            _check_unpacked(path, unpacked.tell() + len(chunk), packed)
            try:
                unpacked.write(chunk)
            except OSError as error:
                raise UserError(f"{path} cannot be unpacked in the data directory ({error.strerror})") from error
            progress.update(len(chunk))


def _refuse(path: Path) -> BinaryIO:
    raise UserError(f"{path} is not a file but a folder, a broken link or a device: replace or remove it")


def _section(stream: BinaryIO, start: int, size: int) -> BinaryIO:
    return io.BufferedReader(_Section(stream, start, size))  # pyright: ignore[reportReturnType]


class _Section(io.RawIOBase):
    """A part of a stream, as a stream. Closing the part leaves the whole stream open."""

    def __init__(self, stream: BinaryIO, start: int, size: int):
        self._stream, self._start, self._size, self._position = stream, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._start + self._position)
        data = self._stream.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
