"""How much of the context's gradient survives float32, for every precision setting of the products.

    python -m benchmarks.precision --image_size 84 --data glyphs

The gradient of CxGrad's context exists only through the normalisation's epsilon, so rounding may drown it. Compared
with float64 at the initial meta-parameters, on training episodes of a prepared data set: the first update of the
context, the context and the scaling factors in the last inner step, and the query logits. On a CPU all settings use
full float32.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import cxgrad_jax as cx
from cxgrad_jax import data
from cxgrad_jax.learners._model import as_float

PRECISIONS = ("default", "high", "highest")


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
    result = {precision: errors(precision, store.images[:2], tasks) for precision in PRECISIONS}
    for precision, found in result.items():
        print(f"{precision:8}", ", ".join(f"{name} {value:.1e}" for name, value in found.items()))
    if arguments.out:
        arguments.out.write_text(json.dumps({"backend": jax.default_backend(), "errors": result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
