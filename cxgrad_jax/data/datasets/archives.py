"""Zips, tars and folders as one thing: a mapping from a file's name to a function that reads its bytes.

Nothing is ever extracted by a path that an archive names, so no archive can write outside of the data directory.
"""

import contextlib
import functools
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from absl import logging

from cxgrad_jax.data.datasets.catalogue import Facts
from cxgrad_jax.errors import UserError

Files = dict[str, Callable[[], bytes]]

# What zipfile, tarfile and gzip raise for damaged or unusual (encrypted, unknown compression) archives.
DAMAGE = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


class Span(NamedTuple):
    """A file inside of an uncompressed tar; calling it reads the bytes."""

    file: BinaryIO
    offset: int
    size: int
    name: str

    def __call__(self) -> bytes:
        data = os.pread(self.file.fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise UserError(f"{self.name} is cut off; the archive is incomplete, get it again")
        return data


def open_files(path: Path, stack: contextlib.ExitStack, scratch: Path) -> Files:
    """Lists the files of a zip, a tar, a gzipped tar or a folder.

    Args:
      path: the archive or the folder.
      stack: closes what is opened here, once no function of the result is needed any more.
      scratch: a folder on a disk with room for a gzipped tar's content: it is unpacked into a nameless temporary file
        first, since only then its files can be read in any order. This also checks the whole of it.

    Returns:
      From each file's name in the archive, with "/" between folders, to a function that reads it.

    Raises:
      UserError: there is no such file, it is no archive, or it is damaged. The functions raise it, too.
    """
    if path.is_dir():
        folders = os.walk(path, followlinks=True)  # Path.rglob would pass by linked class folders
        listed = [Path(folder, name) for folder, _, names in folders for name in names]
        return {file.relative_to(path).as_posix(): file.read_bytes for file in sorted(listed)}
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected an archive or a folder")
    with damage_told(path):
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            return {name: functools.partial(_read_zipped, archive, name) for name in names}
        file: BinaryIO = stack.enter_context(path.open("rb"))
        if file.read(2) == b"\x1f\x8b":
            unpacked = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
            file = unpacked
        return tar_files(Span(file, 0, os.fstat(file.fileno()).st_size, str(path)))


def tar_files(span: Span) -> Files:
    """Lists the files of an uncompressed tar, which may itself be a file inside of another tar."""
    files: Files = {}
    span.file.seek(span.offset)
    with damage_told(Path(span.name)), tarfile.TarFile(fileobj=span.file) as tar:
        while (member := tar.next()) is not None:
            if member.offset_data + member.size > span.offset + span.size:
                raise UserError(f"{span.name} is cut off in {member.name}; the archive is incomplete, get it again")
            if member.isreg() and not member.issparse():
                name = f"{span.name}: {member.name}"
                files[member.name.removeprefix("./")] = Span(span.file, member.offset_data, member.size, name)
            # tarfile would keep a kilobyte for each of ImageNet's million files.
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
    return files


@contextlib.contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turns what a damaged archive raises into a UserError that names it."""
    try:
        yield
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read as a complete zip or tar archive ({reason}); get it again") from error


def check_published(path: Path, facts: Facts) -> None:
    """Warns where a local archive is not the publisher's file, bit for bit; its layout is checked in any case."""
    expected = {archive.sha256 for archive in facts.archives if archive.sha256}
    if not expected or not path.is_file():
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in expected:
        logging.warning("%s is not the publisher's file (its sha256 is %s): only its layout is checked", path, digest)


def _read_zipped(archive: zipfile.ZipFile, name: str) -> bytes:
    with damage_told(Path(f"{archive.filename}: {name}")):
        return archive.read(name)
