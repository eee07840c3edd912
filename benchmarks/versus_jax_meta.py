"""MAML here against MAML in jax-meta (JAX and Haiku), on this machine, interleaved, on the same shapes.

    pip install jax-meta dm-haiku
    python -m benchmarks.versus_jax_meta --setting maml_mini_1shot --rounds 5 --out FILE.json
    python -m benchmarks.versus_jax_meta --setting maml_cifar_fs_1shot --what adaptation --rounds 5 --out FILE.json

A round is one training iteration: theirs is ``MAML.step`` on ready arrays, with its Conv4 and a linear layer behind;
the configuration's filters, inner steps, inner rate, tasks and images, second order, Adam. With ``--what adaptation``
it is the inner loops of 20 episodes and the predictions of their queries: theirs is what ``MAML.evaluate`` compiles.
"""

import argparse
import importlib.util
import sys

import numpy as np

from benchmarks import interleaved, ours
from cxgrad_jax.evaluation import EPISODES_AT_ONCE

SETTINGS = ("maml_mini_1shot", "maml_mini_5shot", "maml_cifar_fs_1shot", "maml_cifar_fs_5shot")


def our_side(arguments: argparse.Namespace):
    """This project's round."""
    import jax

    config = ours.prepare(arguments.setting)
    one_round = ours.training(config) if arguments.what == "training" else ours.adaptation(config, EPISODES_AT_ONCE)
    return one_round, {"jax": jax.__version__}


def jax_meta_side(arguments: argparse.Namespace):
    """jax-meta's round on random images."""
    import haiku as hk  # pyright: ignore[reportMissingImports]
    import jax
    import jax_meta  # pyright: ignore[reportMissingImports]
    import optax
    from jax_meta.datasets.base import Dataset  # pyright: ignore[reportMissingImports]
    from jax_meta.metalearners import MAML  # pyright: ignore[reportMissingImports]
    from jax_meta.modules.conv import Conv4  # pyright: ignore[reportMissingImports]

    config = ours.prepare(arguments.setting)
    random, size = np.random.default_rng(0), config.data.image_size
    tasks = config.train.meta_batch if arguments.what == "training" else EPISODES_AT_ONCE

    @hk.without_apply_rng
    @hk.transform_with_state
    def model(images, is_training):
        return hk.Linear(config.episode.way)(Conv4(config.model.features)(images, is_training))

    def part(per_class):
        labels = np.tile(np.repeat(np.arange(config.episode.way), per_class), (tasks, 1))
        return Dataset(random.random((*labels.shape, size, size, 3), dtype=np.float32), labels, None)

    learner = MAML(model, num_steps=config.learner.num_steps, alpha=config.learner.inner_lr)
    support, query = part(config.episode.shot), part(config.episode.query)
    adam = optax.adam(config.train.learning_rate)
    params, state = learner.init(jax.random.PRNGKey(0), adam, support.inputs[0], True)

    def iteration():
        nonlocal params, state
        params, state, logs = learner.step(params, state, support, query, True)
        jax.block_until_ready((params, logs))

    evaluate = jax.jit(lambda params: learner.batch_outer_loss(params, state.model, support, query, (True,)))
    one_round = iteration if arguments.what == "training" else lambda: jax.block_until_ready(evaluate(params))
    return one_round, {"jax_meta": jax_meta.__version__}


def main(flags: list[str]) -> None:
    """Compares and reports; exits with status 2 where jax-meta is missing."""
    parser = argparse.ArgumentParser(prog="versus_jax_meta", description="Our MAML against jax-meta's.")
    parser.add_argument("--setting", choices=SETTINGS, default="maml_mini_1shot")
    parser.add_argument("--what", choices=["training", "adaptation"], default="training")
    if importlib.util.find_spec("jax_meta") is None or importlib.util.find_spec("haiku") is None:
        parser.error("jax-meta is missing: pip install jax-meta dm-haiku")
    sides = {"ours": our_side, "jax_meta": jax_meta_side}
    arguments, result = interleaved.run("benchmarks.versus_jax_meta", parser, sides, flags)
    result["ratio_median"] = result["jax_meta_seconds"] / result["ours_seconds"]
    interleaved.report(
        arguments, result, ["ratio_median", "ours_seconds", "jax_meta_seconds", "ours_peak_mb", "jax_meta_peak_mb"]
    )


if __name__ == "__main__":
    main(sys.argv[1:])
