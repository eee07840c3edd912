"""The small networks that some learners meta-learn beside the model: a linear layer, and an MLP of two."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cxgrad_jax.errors import UserError


def linear(layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """``x [..., D] @ kernel [D, E] + bias [E]`` of a ``layer``, at the highest precision.

    Raises:
      UserError: the D of ``x`` is not that of the layer.
    """
    if x.shape[-1] != layer["kernel"].shape[0]:
        raise UserError(
            f"a linear layer for {layer['kernel'].shape[0]} features was given {x.shape[-1]}; "
            "give images of the size that init made the parameters for"
        )
    product = jnp.matmul(x, layer["kernel"], precision="highest")
    return product + jnp.expand_dims(layer["bias"], range(product.ndim - 1))


def mlp(layers: Mapping[str, Mapping[str, jax.Array]], x: jax.Array) -> jax.Array:
    """``W2 relu(W1 x + b1) + b2`` of the layers ``"hidden"`` and ``"output"``."""
    return linear(layers["output"], jax.nn.relu(linear(layers["hidden"], x)))


def init_linear(key: jax.Array, inputs: int, outputs: int, bound: float, dtype: jnp.dtype) -> dict[str, jax.Array]:
    """Makes the parameters of ``linear``: kernel ``[inputs, outputs]`` and bias, uniform in ±bound."""
    kernel_key, bias_key = jax.random.split(key)
    kernel = jax.random.uniform(kernel_key, (inputs, outputs), dtype, -bound, bound)
    return {"kernel": kernel, "bias": jax.random.uniform(bias_key, (outputs,), dtype, -bound, bound)}


def init_mlp(key: jax.Array, inputs: int, hidden: int, outputs: int, dtype: jnp.dtype) -> dict[str, Any]:
    """Makes the parameters of ``mlp``: weights and biases uniform in ±1/sqrt(fan-in), PyTorch's default."""
    hidden_key, output_key = jax.random.split(key)
    return {
        "hidden": init_linear(hidden_key, inputs, hidden, inputs**-0.5, dtype),
        "output": init_linear(output_key, hidden, outputs, hidden**-0.5, dtype),
    }
