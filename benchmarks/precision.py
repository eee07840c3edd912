"""How much of the context's gradient survives the precision of the products.

    python -m benchmarks.precision --image_size 84 --data glyphs

The gradient of CxGrad's context exists only through the normalisation's epsilon, so rounding may drown it. Compared
with float64 at the initial meta-parameters, on training episodes of a prepared data set: the first update of the
context, the context and the scaling factors in the last inner step, and the query logits.

On an accelerator the settings of ``model.precision`` are compared. A CPU uses full float32 for all of them, so there
the products of accelerators are imitated: the factors of each convolution and of the head, in every derivative, are
rounded as the device rounds them, and their products are added in float32.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import cxgrad_jax as cx
from cxgrad_jax import data
from cxgrad_jax.learners._model import as_float
from cxgrad_jax.models import _convolution, _layers

PRECISIONS = ("default", "high", "highest")
BFLOAT16, TF32 = 7, 10  # bits of the mantissa
Split = Callable[[jax.Array], list[jax.Array]]


def rounded(x: jax.Array, bits: int) -> jax.Array:
    """``x`` with a mantissa of this many bits, in its own dtype."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=bits)


def summands(x: jax.Array, number: int) -> list[jax.Array]:
    """``number`` values of bfloat16 whose sum is ``x`` as nearly as they can."""
    found = []
    for _ in range(number):
        found.append(rounded(x, BFLOAT16))
        x = x - found[-1]
    return found


# What a factor is divided into. The products of those parts are added whose sizes are not below the last of them.
IMITATED: dict[str, Split] = {
    "float32 (H100, highest)": lambda x: [x],
    "TF32 (H100, default and high)": lambda x: [rounded(x, TF32)],
    "six passes of bfloat16 (TPU, highest)": lambda x: summands(x, 3),
    "three passes of bfloat16 (TPU, high)": lambda x: summands(x, 2),
    "one pass of bfloat16 (TPU, default)": lambda x: summands(x, 1),
}


@contextlib.contextmanager
def imitated(split: Split) -> Iterator[None]:
    """Within it the products of float32 of a model's convolutions and head are those of another device."""
    convolve, multiply = _convolution._lax_convolution, jnp.matmul

    def convolve_in_parts(x, kernel, precision, margin):
        if x.dtype != jnp.float32:
            return convolve(x, kernel, precision, margin)
        left, right = split(x), split(kernel)
        pairs = [(i, j) for i in range(len(left)) for j in range(len(right)) if i + j < len(left)]
        return sum(convolve(left[i], right[j], precision, margin) for i, j in reversed(pairs))

    def product(x, matrix, precision=None):  # whose derivatives are then of parts, too
        if precision == "highest":  # not the model's head but the generator, which has it everywhere
            return multiply(x, matrix, precision=precision)
        return _convolution.convolution(x[:, None, None], matrix[None, None], precision)[:, 0, 0]

    with (
        mock.patch.object(_convolution, "_lax_convolution", convolve_in_parts),
        mock.patch.object(_layers.jnp, "matmul", product),
    ):
        yield


def errors(precision: str, images: np.ndarray, tasks: cx.Episode) -> dict[str, float]:
    """Largest deviation of float32 from float64, relative to the tensor's largest value, median over the episodes."""
    model = cx.models.Conv4(num_classes=5, precision=precision)
    learner = cx.learners.cxgrad(model)
    params = learner.init(jax.random.key(0), as_float(jnp.asarray(images), jnp.float64))

    def outcome(params, episode):
        task = learner.adapt(params, episode.support_images, episode.support_labels)
        logits = learner.predict(params, task, episode.query_images)
        context, gamma = task.trace["context"], task.trace["gamma"]
        return {"first context": context[0], "last context": context[-1], "last gamma": gamma[-1], "logits": logits}

    run = jax.jit(lambda params, episodes: jax.lax.map(lambda episode: outcome(params, episode), episodes))
    exact = run(params, tasks)
    single = run(jax.tree.map(lambda x: x.astype(jnp.float32), params), tasks)

    def error(a, b):
        axes = tuple(range(1, a.ndim))
        return float(np.median(np.max(np.abs(a - b), axes) / np.max(np.abs(b), axes)))

    return {name: error(np.asarray(single[name], np.float64), np.asarray(exact[name])) for name in exact}


def main(flags: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="precision", description="Float32 against float64 in CxGrad's inner loop.")
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(flags)
    jax.config.update("jax_enable_x64", True)
    try:
        store = data.load(arguments.data, "train", image_size=arguments.image_size, data_dir=arguments.data_dir)
    except cx.UserError as error:
        parser.error(str(error))
    tasks = cx.sampler(store, 5, arguments.shot, 15).batch(np.arange(arguments.episodes))
    measure = partial(errors, images=store.images[:2], tasks=tasks)
    if jax.default_backend() == "cpu":
        result = {}
        for name, split in IMITATED.items():
            with imitated(split):
                result[name] = measure("default")
    else:
        result = {precision: measure(precision) for precision in PRECISIONS}
    for name, found in result.items():
        print(f"{name:38}", ", ".join(f"{what} {value:.1e}" for what, value in found.items()), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"backend": jax.default_backend(), "errors": result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
