"""``cx.load`` takes a file, else a bundled name, else only what begins with hf://."""

import re
import socket
import sys
import types
from pathlib import Path

import pytest
from small import make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import weight_files

ROOT = Path(__file__).parents[1]


@pytest.fixture
def file(tmp_path):
    learner, _, params = make("maml", make_episode())
    path = tmp_path / "own" / "mine.safetensors"
    path.parent.mkdir()
    cx.save(path, learner, params)
    return path


@pytest.fixture
def package(tmp_path, file, monkeypatch):
    """An installed package with two weights, from whose folder nothing is in sight."""
    folder = tmp_path / "site-packages" / "cxgrad_jax"
    (folder / "weights").mkdir(parents=True)
    for name in ("maml_cifar_fs", "proto_net_cifar_fs"):
        (folder / "weights" / f"{name}.safetensors").write_bytes(file.read_bytes())
        (folder / "weights" / f"{name}.md").write_text("card")
    (folder.parent / "weights").mkdir()  # of another distribution
    (folder.parent / "weights" / "other.safetensors").write_bytes(b"")
    monkeypatch.setattr(weight_files, "PACKAGE", folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*_):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_installed_the_weights_lie_inside_the_package(package):
    assert list(weight_files.bundled()) == ["maml_cifar_fs", "proto_net_cifar_fs"]
    learner, _ = cx.load("maml_cifar_fs")
    assert learner.spec["learner"] == "maml"


def test_in_a_checkout_they_lie_beside_it():
    assert set(weight_files.bundled()) == {path.stem for path in (ROOT / "weights").glob("*.safetensors")}


def test_a_file_of_the_users_wins(package, file):
    learner, _, params = make("anil", make_episode())
    cx.save("maml_cifar_fs", learner, params)
    assert cx.load("maml_cifar_fs")[0].spec["learner"] == "anil"
    Path("proto_net_cifar_fs").mkdir()  # a folder is no file
    assert cx.load("proto_net_cifar_fs")[0].spec["learner"] == "maml"
    assert cx.load(file)[0].spec["learner"] == "maml"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mmal_cifar_fs", "did you mean maml_cifar_fs? The names are"),
        ("weights/maml_cifar_fs.safetensors", "did you mean maml_cifar_fs?"),
        ("owner/name", "expected a file that cx.save wrote, or one of"),
        ("nowhere/x.safetensors", "expected a file that cx.save wrote, or one of"),
        ("https://example.org/x.safetensors", "expected a file that cx.save wrote, or one of"),
        ("hf:/owner/name", "expected a file that cx.save wrote, or one of"),
        ("x" * 5000, "expected a file that cx.save wrote, or one of"),
        ("a\0b", "expected a file that cx.save wrote, or one of"),
    ],
)
def test_a_mistyped_path_is_one_line_with_the_names(package, name, hint, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(cx.UserError) as error:
        cx.load(name)
    assert str(error.value).startswith(f"{name} is neither a file nor the name of bundled weights; {hint}")
    assert str(error.value).endswith("maml_cifar_fs, proto_net_cifar_fs") and "\n" not in str(error.value)


def hub(monkeypatch, download):
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))


def test_of_the_hub(file, monkeypatch):
    asked = []

    def download(repository, name):
        asked.append((repository, name))
        return str(file)

    hub(monkeypatch, download)
    assert cx.load("hf://owner/name")[0].spec["learner"] == "maml"
    cx.load("hf://owner/name/folder/x.safetensors")
    assert asked == [("owner/name", "model.safetensors"), ("owner/name", "folder/x.safetensors")]


@pytest.mark.parametrize("name", ["hf://", "hf://owner", "hf://owner/", "hf:///name", "hf://owner/name/model.bin"])
def test_a_name_that_the_hub_cannot_have_is_not_asked_for(name, monkeypatch):
    hub(monkeypatch, None)
    with pytest.raises(cx.UserError, match=rf"{name} is not a name on the Hub; expected hf://OWNER/NAME or hf://"):
        cx.load(name)


def test_without_huggingface_hub_the_line_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    expected = "hf://owner/name needs huggingface_hub: pip install 'cxgrad_jax[hub]'"
    with pytest.raises(cx.UserError, match=f"^{re.escape(expected)}$"):
        cx.load("hf://owner/name")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError("\nno file\nRequest ID: 3"), "(FileNotFoundError: no file)"),
        (ValueError(""), "(ValueError: )"),
        (RuntimeError("cut"), "(RuntimeError: cut)"),
    ],
)
def test_what_the_hub_refuses_is_one_line(error, line, monkeypatch):
    def download(*_):
        raise error

    hub(monkeypatch, download)
    with pytest.raises(cx.UserError, match=f"^hf://owner/name cannot be fetched {re.escape(line)}$"):
        cx.load("hf://owner/name")


def test_without_a_network_the_hub_itself_gives_one_line(monkeypatch, tmp_path):
    """The real huggingface_hub, where it is installed, which is told that there is no network."""
    library = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("hf://owner/name", "hf://ow ner/name", "hf://owner/name/../../x.safetensors"):
        with pytest.raises(cx.UserError, match=f"^{name} cannot be fetched") as error:
            cx.load(name)
        assert "\n" not in str(error.value) and library
