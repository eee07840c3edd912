import bz2
import contextlib
import gzip
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from cxgrad_jax.data.datasets import archives
from cxgrad_jax.data.datasets.archives import open_files, tar_files
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
    elif kind == "tbz":
        path.write_bytes(bz2.compress(make.tar_bytes(FILES)))
    elif kind == "txz":
        path.write_bytes(lzma.compress(make.tar_bytes(FILES)))
    else:
        make.write_folder(path, FILES)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tbz", "txz", "folder"])
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
        inner = tar_files(outer["inner.tar"].open(), "inner.tar")
        assert {name: reader() for name, reader in inner.items()} == FILES
        assert outer["last"]() == b"y"


def test_linked_folders_are_followed(tmp_path, make):
    make.write_folder(tmp_path / "elsewhere", FILES)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    with contextlib.ExitStack() as stack:
        assert open_files(tmp_path / "root", stack, tmp_path).keys() == {f"link/{name}" for name in FILES}


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tbz", "txz"])
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


def refusal(path, tmp_path, read=False):
    with contextlib.ExitStack() as stack, pytest.raises(UserError) as error:
        files = open_files(path, stack, tmp_path)
        if read:
            for reader in files.values():
                reader()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_get_it_again_is_said_of_damage_alone(tmp_path, make):
    (tmp_path / "page.zip").write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>")
    assert "page.zip is a web page" in refusal(tmp_path / "page.zip", tmp_path)
    path = write("zip", tmp_path, make)
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1  # encrypted
    path.write_bytes(data)
    message = refusal(path, tmp_path, read=True)
    assert "encrypted" in message and "get it again" not in message
    path = write("tgz", tmp_path, make)
    with contextlib.ExitStack() as stack:
        with pytest.raises(UserError, match="tgz cannot be read .No such file or directory") as error:
            open_files(path, stack, tmp_path / "no such folder")
    assert "get it again" not in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "tgz", "tbz", "txz"])
def test_what_unpacks_to_too_much_is_refused(kind, tmp_path, make, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 1 << 20)
    zeros = bytes(8 << 20)
    path = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", zeros)
    else:
        compress = {"tgz": gzip.compress, "tbz": bz2.compress, "txz": lzma.compress}[kind]
        path.write_bytes(compress(make.tar_bytes({"a": zeros})))
    assert "unpacks to more than 1,048,576 bytes" in refusal(path, tmp_path)


def test_an_image_of_too_many_bytes_is_refused(tmp_path, make, monkeypatch):
    monkeypatch.setattr(archives, "IMAGE_BYTES", 100)
    make.write_folder(tmp_path / "folder", {"a.png": bytes(101)})
    assert "a.png has 101 bytes; expected an image of at most 100" in refusal(tmp_path / "folder", tmp_path, read=True)


def test_a_tar_that_steps_back_ends(tmp_path, make):
    """A member of negative size sends tarfile back to a header that it has read."""
    data = bytearray(make.tar_bytes({"a": b"x" * 600, "b": b"y"}))
    data[124:136] = (-1024 & ((1 << 96) - 1)).to_bytes(12, "big")
    header = bytes(data[:148]) + b" " * 8 + bytes(data[156:512])
    data[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "back.tar").write_bytes(data)
    assert "back.tar cannot be read as a complete zip or tar archive (its headers are damaged)" in refusal(
        tmp_path / "back.tar", tmp_path
    )


def test_mutated_archives_are_read_or_one_line(tmp_path, make):
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        kind = ["zip", "tar", "tgz", "tbz", "txz"][trial % 5]
        path = write(kind, tmp_path, make)
        data = bytearray(path.read_bytes())
        for position in rng.integers(0, len(data), rng.integers(1, 8)):
            data[position] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(data) + 1)] if trial % 3 == 0 else data)
        try:
            with contextlib.ExitStack() as stack:
                for reader in open_files(path, stack, tmp_path).values():
                    reader()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < 300
