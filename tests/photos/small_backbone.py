"""A backbone that is quick."""

import jax
import numpy as np

import cxgrad_jax as cx
from cxgrad_jax.photos import Backbone, Preprocessing


def conv4(size=32):
    model = cx.models.Conv4(num_classes=2, features=8)
    params = model.init(jax.random.key(0), np.zeros((1, size, size, 3), np.float32))["params"]
    return Backbone("small", model, {"params": params}, Preprocessing(size))
