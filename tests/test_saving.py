"""Digests notice every change; a saved learner comes back as it was, and nothing else does."""

import errno
import json
import os
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from small import jitted, make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import saving


def test_digest_notices_values_shapes_names_and_dtypes():
    base = {"a": np.zeros((2, 3), np.float32), "b": np.ones(2, np.float32)}
    variants = [
        base,
        {**base, "a": base["a"].reshape(3, 2)},
        {**base, "a": base["a"].astype(np.float64)},
        {"a": base["a"], "c": base["b"]},
        {**base, "b": np.nextafter(base["b"], np.float32(2))},
    ]
    assert len({saving.params_sha256(variant) for variant in variants}) == len(variants)
    assert saving.params_sha256(base) == saving.params_sha256(dict(reversed(base.items())))


@pytest.fixture
def saved(tmp_path):
    learner, _, params = make("cxgrad", make_episode(), num_steps=2, inner_lr=0.05)
    path = tmp_path / "x.safetensors"
    cx.save(path, learner, params)
    return learner, params, path


def logits_of(learner, params):
    episode, learner = make_episode(), jitted(learner)
    adapted = learner.adapt(params, episode.support_images, episode.support_labels)
    return np.asarray(learner.predict(params, adapted, episode.query_images))


def test_there_and_back(saved):
    learner, params, path = saved
    again, read = cx.load(str(path))
    assert again.spec == learner.spec and saving.params_sha256(read) == saving.params_sha256(params)
    np.testing.assert_array_equal(logits_of(again, read), logits_of(learner, params))


def test_anyone_can_read_the_header(saved):
    with safetensors.safe_open(saved[2], "np") as file:
        header = file.metadata()
        assert "model/block_0/conv/kernel" in file.keys()  # noqa: SIM118
    assert json.loads(header["learner"])["learner"] == "cxgrad"


def test_the_size_of_the_images_is_kept(saved):
    learner, params, path = saved
    assert saving.image_size_of(path) is None
    cx.save(path, learner, params, image_size=48)
    assert saving.image_size_of(path) == 48 and cx.load(path)[0].spec == learner.spec
    header, arrays = saving.read_arrays(path, "cx.save", "format", saving.FORMAT)
    for spoilt in ("0", "big"):
        saving.write_arrays(path, arrays, {**header, "image_size": spoilt})
        with pytest.raises(cx.UserError, match=f"is damaged .its image_size is '{spoilt}'"):
            saving.image_size_of(path)


def test_the_same_content_is_the_same_bytes(saved, tmp_path):
    learner, params, path = saved
    for number in range(5):  # the format's own writer orders the header by chance
        cx.save(tmp_path / f"{number}", learner, params)
        assert (tmp_path / f"{number}").read_bytes() == path.read_bytes()


class Mine(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def test_a_part_of_the_users_own_is_refused_and_saved_without_the_learner(tmp_path):
    learner, path = cx.learners.maml(Mine()), tmp_path / "x.safetensors"
    params = learner.init(jax.random.key(0), make_episode().support_images)
    with pytest.raises(cx.UserError, match=r"Mine is not part of cxgrad_jax, .*cx.save\(path, None, params\)"):
        cx.save(path, learner, params)
    assert not path.exists()
    cx.save(path, None, params)
    with pytest.raises(cx.UserError, match="describes no learner; give it"):
        cx.load(path)
    given, read = cx.load(path, learner=learner)
    np.testing.assert_array_equal(logits_of(given, read), logits_of(learner, params))


def test_a_file_never_chooses_code(saved, tmp_path, monkeypatch):
    learner, params, path = saved
    (tmp_path / "payload.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    cx.save(path, learner._replace(spec={**learner.spec, "learner": "payload.f"}), params)
    with pytest.raises(cx.UserError, match="payload.f"):
        cx.load(path)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text", "other", "none"])
def test_what_cannot_be_read_is_one_line(saved, damage):
    path = saved[2]
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[-5] ^= 1
    new = {"cut": content[:-9], "bit": content, "empty": b"", "text": b"hello", "none": None}.get(damage)
    if damage == "other":
        new = safetensors.numpy.save({"a": np.zeros(3, np.float32)})
    path.unlink() if new is None else path.write_bytes(new)
    with pytest.raises(cx.UserError, match=str(path)) as error:
        cx.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["meta_baseline", "metaoptnet", "r2d2"])
def test_a_scalar_stays_one(name, tmp_path):
    learner, _, params = make(name, make_episode())
    cx.save(tmp_path / "x.safetensors", learner, params)
    _, loaded = cx.load(tmp_path / "x.safetensors")
    assert jax.tree.map(np.shape, loaded) == jax.tree.map(np.shape, params) and loaded["scale"].shape == ()


def test_a_file_that_may_not_be_read_is_told(saved, monkeypatch):
    path = saved[2]
    os.mkfifo(path.with_name("pipe"))
    with pytest.raises(cx.UserError, match="pipe is not a file; expected one that cx.save wrote"):
        saving.read_arrays(path.with_name("pipe"), "cx.save", "format", saving.FORMAT)

    def forbidden(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pathlib.Path, "open", forbidden)
    with pytest.raises(cx.UserError, match="x.safetensors cannot be read: Permission denied$"):
        cx.load(path)


def test_other_orders_of_bytes_are_turned(tmp_path):
    learner, _, params = make("maml", make_episode(), num_steps=1)
    turned = jax.tree.map(lambda x: np.asarray(x).astype(np.asarray(x).dtype.newbyteorder(">")), params)
    cx.save(tmp_path / "x.safetensors", learner, turned)
    read = cx.load(tmp_path / "x.safetensors")[1]
    assert saving.params_sha256(read) == saving.params_sha256(params)


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"a": np.ones(2, np.longdouble)}, "the parameter a has dtype float128; expected .*; convert it to float32"),
        ({"__metadata__": np.ones(2)}, "a parameter is called '__metadata__', which safetensors keeps for itself"),
        ({"a": {"c": {}}, "b": np.ones(2)}, "the parameter a/c is an empty dict, which a file cannot hold; remove it"),
        ({"a": np.array([1, 2**40])}, "the parameter a has dtype int64 and numbers that do not fit into int32"),
        ({"a\udc80": np.ones(2)}, "is not in a nested dict whose keys are strings without a slash"),
    ],
)
def test_what_no_file_can_hold_is_refused(params, line, tmp_path):
    with pytest.raises(cx.UserError, match=line):
        cx.save(tmp_path / "x.safetensors", None, params)
    assert not list(tmp_path.iterdir())


def test_a_file_of_floats_that_numpy_lacks_is_refused(tmp_path):
    header = {
        "__metadata__": {"format": "1", "sha256": ""},
        "a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(cx.UserError, match="cannot be read as a safetensors file"):
        cx.load(path)
