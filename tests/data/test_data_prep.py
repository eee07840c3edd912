import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxgrad_jax import data
from data_prep.__main__ import main

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "data_prep", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)


def test_prepares(tmp_path, make):
    make.image_folder(tmp_path / "source")
    result = run("image_folder", "--source", tmp_path / "source", "--as_name", "mine", "--data_dir", tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"mine is prepared in {tmp_path / 'data/mine/84/1.0.0'}\n"
    assert data.load("mine", "test", data_dir=tmp_path / "data").images.shape == (6, 84, 84, 3)


def test_users_mistake_is_status_2_and_one_line(tmp_path, make):
    make.image_folder(tmp_path / "source")
    (tmp_path / "source/test/test0/0000.png").write_bytes(b"not an image")
    result = run("image_folder", "--source", tmp_path / "source", "--data_dir", tmp_path / "data")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("cxgrad_jax: test0/0000.png is not a readable image")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "cxgrad_jax: name a data set: mini_imagenet, "),
        (["mnist"], "cxgrad_jax: unknown data set 'mnist'"),
        (["cub"], "cxgrad_jax: cub needs CUB_200_2011.tgz (1,150,585,339 bytes) from https://"),
        (["cub", "--image_size", "big"], "cxgrad_jax: argument --image_size: invalid int value: 'big'"),
        (["cub", "--archive", "a", "--download"], "cxgrad_jax: argument --download: not allowed with argument --"),
        (["cub", "--size", "84"], "cxgrad_jax: unrecognized arguments: --size 84"),
        (["mini_imagenet", "--download"], "cxgrad_jax: mini_imagenet cannot be downloaded"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(tmp_path))
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(message) and errors.count("\n") == 1


def test_list_tells_all(capsys):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in data.NAMES:
        assert f"{name}: " in listed
    for text in ("ILSVRC2012_img_train.tar", "169,001,437 bytes", "1028 train, 172 val, 423 test", "BICUBIC",
        "mini_imagenet_full_size.tar.bz2", "tiered_imagenet.tar", "cifar100.zip", "CUB_200_2011.tgz",
        "mini-imagenet-cache-test.pkl", "val_images_png.pkl",
    ):  # fmt: skip
        assert text in listed


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "python -m data_prep omniglot --download" in capsys.readouterr().out


def test_importing_data_needs_no_tfds():
    code = "import sys, cxgrad_jax.data; print([m for m in sys.modules if m.startswith('tensorflow')])"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


# Runs the command as a user whose id has no account.
NO_ACCOUNT = """
import pwd, runpy, sys
def getpwuid(uid): raise KeyError(uid)
pwd.getpwuid = getpwuid
runpy.run_module("data_prep", run_name="__main__")
"""


def test_works_from_any_folder_without_home(tmp_path, make):
    make.image_folder(tmp_path / "source")
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "CXGRAD_DATA_DIR")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", NO_ACCOUNT, "image_folder", "--source", "source", "--as_name", "mine"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"mine is prepared in {tmp_path / 'cxgrad_jax/mine/84/1.0.0'}\n"
    assert result.stderr.count("there is no home folder") == 1
