import contextlib
import gzip
import tarfile

import pytest

from cxgrad_jax.data.datasets.archives import Span, open_files, tar_files
from cxgrad_jax.errors import UserError

FILES = {"a/one.bin": bytes(range(256)) * 9, "a/b/two.bin": b"2" * 700, "three.bin": b""}


def write(kind, tmp_path, make):
    path = tmp_path / f"archive.{kind}"
    if kind == "zip":
        make.write_zip(path, FILES)
    elif kind == "tar":
        path.write_bytes(make.tar_bytes(FILES))
    elif kind == "tgz":
        path.write_bytes(gzip.compress(make.tar_bytes(FILES)))
    else:
        make.write_folder(path, FILES)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "folder"])
def test_files_are_read_in_any_order(kind, tmp_path, make):
    path = write(kind, tmp_path, make)
    with contextlib.ExitStack() as stack:
        files = open_files(path, stack, tmp_path)
        assert {name: files[name]() for name in reversed(files)} == FILES


def test_tar_inside_of_a_tar(tmp_path, make):
    path = tmp_path / "outer.tar"
    path.write_bytes(make.tar_bytes({"first": b"x" * 1000, "inner.tar": make.tar_bytes(FILES), "last": b"y"}))
    with contextlib.ExitStack() as stack:
        outer = open_files(path, stack, tmp_path)
        span = outer["inner.tar"]
        assert isinstance(span, Span)
        inner = tar_files(span)
        assert {name: reader() for name, reader in inner.items()} == FILES
        assert outer["last"]() == b"y"


def test_linked_folders_are_followed(tmp_path, make):
    make.write_folder(tmp_path / "elsewhere", FILES)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    with contextlib.ExitStack() as stack:
        assert open_files(tmp_path / "root", stack, tmp_path).keys() == {f"link/{name}" for name in FILES}


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("kept", [0, 1, 300, 1100])
def test_cut_off_archive_is_named(kind, kept, tmp_path, make):
    path = write(kind, tmp_path, make)
    data = path.read_bytes()
    if kept >= len(data):
        kept = len(data) - 20
    path.write_bytes(data[:kept])
    with contextlib.ExitStack() as stack, pytest.raises(UserError, match=f"archive.{kind} (cannot be read|is cut)"):
        open_files(path, stack, tmp_path)


def test_flipped_byte_in_a_zip_is_found_when_read(tmp_path, make):
    path = write("zip", tmp_path, make)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with contextlib.ExitStack() as stack:
        files = open_files(path, stack, tmp_path)
        with pytest.raises(UserError, match=r"archive\.zip: a/one\.bin cannot be read"):
            files["a/one.bin"]()


def test_paths_out_of_the_archive_write_nothing(tmp_path, make):
    path = tmp_path / "evil.tar"
    path.write_bytes(make.tar_bytes({"../escaped.txt": b"x", str(tmp_path / "absolute.txt"): b"y"}))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with contextlib.ExitStack() as stack:
        files = open_files(path, stack, scratch)
        assert files["../escaped.txt"]() == b"x" and "link" not in files
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.tar", "scratch"]
    assert not list(scratch.iterdir())
