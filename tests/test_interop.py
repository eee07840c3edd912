"""Official state dicts, in and out; the figures themselves are checked by learners/test_golden.py."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import cxgrad_jax as cx

CONV = "classifier.layer_dict.conv0.conv.weight"


SMALL, BIASED = (cx.models.Conv4(num_classes=5, features=4, use_bias=use_bias) for use_bias in (False, True))
RESIDUAL = cx.models.ResNet12(num_classes=5, channels=(2, 3, 4, 5))
FAMILY = (cx.learners.alfa, cx.learners.l2f, cx.learners.maml_plus_plus)
IMAGES = np.zeros((1, 32, 32, 3), np.float32)


def params_of(model, factory):
    """Meta-parameters of the right shapes, each of random numbers."""
    shapes, rng = jax.eval_shape(factory(model).init, jax.random.key(0), IMAGES), np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


CXGRAD = params_of(SMALL, cx.learners.cxgrad)
MAML = {"model": CXGRAD["model"]}


@pytest.mark.parametrize(
    ("model", "factory"),
    [
        (SMALL, cx.learners.cxgrad),
        *((model, factory) for factory in (cx.learners.maml, *FAMILY) for model in (SMALL, BIASED, RESIDUAL)),
        *((BIASED, factory) for factory in (cx.learners.anil, cx.learners.boil, cx.learners.cavia)),
    ],
)
def test_out_and_in_again(model, factory):
    params, learner = params_of(model, factory), factory.__name__
    arrays = cx.interop.to_official(params, learner)
    back = flatten_dict(cx.interop.from_official(arrays, learner))
    assert back.keys() == flatten_dict(params).keys()
    for path, leaf in flatten_dict(params).items():
        np.testing.assert_array_equal(back[path], leaf)


def test_layout_is_the_official_one():
    arrays = cx.interop.to_official(CXGRAD, "cxgrad")
    assert arrays[CONV].shape == (4, 3, 3, 3) and arrays["gamma_generator.2.weight"].shape == (4, 100)
    kernel = CXGRAD["model"]["head"]["kernel"].reshape(2, 2, 4, 5)  # H, W, C, out
    np.testing.assert_array_equal(arrays["classifier.layer_dict.linear.weights"].reshape(5, 4, 2, 2)[3, 1, 0, 1],
                                  kernel[0, 1, 1, 3])  # fmt: skip


def test_the_map_need_not_be_square():
    kernel = np.arange(2 * 1 * 4 * 5.0).reshape(2, 1, 4, 5)  # H, W, C, out, for images of 32x16
    params = {"model": {**CXGRAD["model"], "head": {**CXGRAD["model"]["head"], "kernel": kernel.reshape(8, 5)}}}
    arrays = cx.interop.to_official(params, "maml")
    official = arrays["classifier.layer_dict.linear.weights"]
    np.testing.assert_array_equal(official.reshape(5, 4, 2, 1), kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(
        cx.interop.from_official(arrays, "maml")["model"]["head"]["kernel"], kernel.reshape(8, 5)
    )


def test_what_no_step_uses_is_left_out_and_written_as_zero():
    params = cx.learners.alfa(BIASED).init(jax.random.key(0), IMAGES)
    arrays = cx.interop.to_official(params, "alfa")
    name = "inner_loop_optimizer.names_alpha_dict.layer_dict-conv0-conv-bias"
    np.testing.assert_array_equal(arrays[name], np.array([0.01] * 5 + [0], np.float32))
    del arrays[name]
    with pytest.raises(cx.UserError, match=f"'{name}' is missing; is it a complete alfa checkpoint"):
        cx.interop.from_official(arrays, "alfa")


def without(name, learner="cxgrad"):
    arrays = cx.interop.to_official(CXGRAD, "cxgrad")
    del arrays[name]
    return arrays, learner


def changed(name, array, learner="cxgrad"):
    return {**cx.interop.to_official(CXGRAD, "cxgrad"), name: array}, learner


MISTAKES = {
    "unknown learner": ((cx.interop.to_official(CXGRAD, "cxgrad"), "protonet"), "'protonet' has no official format"),
    "unknown name": (changed("conv9.weight", np.zeros(3)), "'conv9.weight' is not in the official"),
    "missing kernel": (without(CONV), f"'{CONV}' is missing"),
    "missing generator": ((cx.interop.to_official(MAML, "maml"), "cxgrad"), "'gamma_generator.0.bias' is missing"),
    "surplus generator": ((cx.interop.to_official(CXGRAD, "cxgrad"), "maml"), "does not belong to maml"),
    "wrong rank": (changed(CONV, np.zeros((4, 27))), "expected 4 axes"),
    "head of no map": (
        changed("classifier.layer_dict.linear.weights", np.zeros((5, 14))),
        "the head has 14 inputs; expected a multiple of the 4 channels",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_line(mistake):
    arguments, words = MISTAKES[mistake]
    with pytest.raises(cx.UserError) as error:
        cx.interop.from_official(*arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_parameters_of_other_models_have_no_official_name():
    with pytest.raises(cx.UserError, match="has no name in the official code"):
        cx.interop.to_official({"model": {"Dense_0": {"kernel": np.zeros((2, 2))}}}, "maml")


class Hostile:
    """Unpickling it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__("os").mkdir, (self.path,)


def test_checkpoint_files(tmp_path, caplog):
    torch = pytest.importorskip("torch", reason="reading .pt files is an extra")
    arrays = cx.interop.to_official(CXGRAD, "cxgrad")
    network = {name: torch.tensor(array) for name, array in arrays.items()}
    network["classifier.layer_dict.conv0.norm_layer.running_mean"] = torch.zeros(4)
    torch.save({"network": network, "best_val_acc": 0.5, "current_iter": 500}, tmp_path / "train_model_1")
    params = cx.interop.load_official(tmp_path / "train_model_1", "cxgrad")
    np.testing.assert_array_equal(params["generator"]["output"]["bias"], CXGRAD["generator"]["output"]["bias"])

    rate = "inner_loop_optimizer.names_learning_rates_dict.conv0-conv-weight"
    torch.save({**network, rate: torch.full((6,), 0.1)}, tmp_path / "rate")
    assert not caplog.records
    cx.interop.load_official(tmp_path / "rate", "cxgrad")
    assert "was trained with the inner rate 0.1; make the learner with that inner_lr" in caplog.text

    torch.save({"network": network, "extra": Hostile(str(tmp_path / "made"))}, tmp_path / "hostile")
    (tmp_path / "cut").write_bytes((tmp_path / "train_model_1").read_bytes()[:2000])
    torch.save([1, 2], tmp_path / "list")
    for name, words in {
        "hostile": "cannot be read", "cut": "cannot be read", "list": "holds no state dict", "none": "is not a file",
    }.items():  # fmt: skip
        with pytest.raises(cx.UserError, match=words) as error:
            cx.interop.load_official(tmp_path / name, "cxgrad")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_without_torch_the_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(cx.UserError, match=r"cxgrad_jax\[torch\]"):
        cx.interop.load_official("anything", "cxgrad")
