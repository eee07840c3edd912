"""What the tests of data sets share: small archives, and the complete real data where they are at hand."""

import importlib.util
import io
import os
import tarfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def real_data_dir() -> Path:
    """Where the complete CIFAR-FS and Omniglot lie."""
    return Path(os.environ.get("CXGRAD_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


@pytest.fixture(scope="session")
def read_real():
    """The function that reads one of the real data files: images, labels and facts of the classes."""
    directory = real_data_dir()
    if not (directory / "load.py").is_file():
        pytest.skip(f"the real data are not in {directory}; CXGRAD_TEST_DATA tells where they are")
    spec = importlib.util.spec_from_file_location("real_data", directory / "load.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: module.load(str(directory / name))


def pixels(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    """Smooth random colours, uint8 [height, width, 3]: an image unlike any of another seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def encode(image: np.ndarray, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def expected_rgb(data: bytes, size: int) -> np.ndarray:
    """What Pillow makes of an image file: resized first, RGB second."""
    return np.asarray(Image.open(io.BytesIO(data)).resize((size, size), Image.Resampling.BICUBIC).convert("RGB"))


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def image_folder(root: Path, per_class: int = 3, classes: int = 2) -> dict[str, bytes]:
    """Writes a small root/{train,val,test}/class/*.png; returns the files' bytes by name."""
    names = [
        f"{split}/{split}{c}/{i:04d}.png" for split in ("train", "val", "test") for c in range(classes)
        for i in range(per_class)
    ]  # fmt: skip
    files = {name: encode(pixels(seed), "PNG") for seed, name in enumerate(names)}
    write_folder(root, files)
    return files


@pytest.fixture(scope="session")
def make():
    """The functions above, as the tests' modules cannot import this file."""
    functions = (pixels, encode, expected_rgb, write_zip, tar_bytes, write_folder, image_folder)
    return types.SimpleNamespace(**{function.__name__: function for function in functions})
