"""What the other images of a batch do for a prediction: one image at a time, one class at a time, all together.

    python -m benchmarks.what_a_prediction_sees --iterations 150 --episodes 100 --first_order

Every learner is trained and tested with each ``query_statistics`` that it takes, on the glyphs (5-way 1-shot, 15 query
images a class). The test adapts once an episode and predicts its query images in batches of three kinds. Prints a table
in Markdown.
"""

import argparse
import inspect
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

import cxgrad_jax as cx
from cxgrad_jax import parallel
from cxgrad_jax.evaluation import ci95_tasks, over_episodes
from cxgrad_jax.learners import accuracy
from cxgrad_jax.report.tables import markdown_table

LEARNERS = (  # trained on episodes from the first iteration on, without pre-training
    "alfa", "anil", "boil", "cavia", "cxgrad", "cxgrad_explicit", "cxgrad_informed", "l2f", "maml", "maml_plus_plus",
    "matching_net", "meta_sgd", "modgrad", "proto_net", "relation_net",
)  # fmt: skip
MODES = ("query", "support", "running")
BATCHES = ("one image at a time", "one class at a time", "all together")
RATE = 1e-3  # of Adam


def main(flags: list[str]) -> None:
    """Trains, tests and prints."""
    parser = argparse.ArgumentParser(prog="what_a_prediction_sees", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--learners", nargs="+", default=LEARNERS, choices=LEARNERS, metavar="NAME")
    parser.add_argument("--iterations", type=int, default=150, help="outer iterations of training (default 150)")
    parser.add_argument("--first_order", action="store_true", help="of the learners that have it, which is quicker")
    parser.add_argument("--tasks", type=int, default=2, help="of an iteration (default 2)")
    parser.add_argument("--features", type=int, default=16, help="filters of Conv-4 (default 16)")
    parser.add_argument("--episodes", type=int, default=100, help="of the test (default 100)")
    arguments = parser.parse_args(flags)
    train, test = (cx.sampler(cx.data.load("glyphs", split)) for split in ("train", "test"))
    lines: list[tuple[str, ...]] = [("learner", "query statistics", *BATCHES)]
    for name in arguments.learners:
        for mode in MODES:
            factory = getattr(cx.learners, name)
            quick = arguments.first_order and "first_order" in inspect.signature(factory).parameters
            keywords: dict[str, Any] = {"query_statistics": mode, **({"first_order": True} if quick else {})}
            try:
                learner = factory(cx.models.Conv4(5, arguments.features), **keywords)
            except cx.UserError as error:
                print(f"{name}, {mode}: {error}", file=sys.stderr)
                continue
            optimiser, iterations = optax.adam(RATE), arguments.iterations
            params = cx.fit(learner, train, optimiser, iterations=iterations, tasks=arguments.tasks, progress=False)
            found = tested(learner, params, test, arguments.episodes)
            lines.append((name, mode, *(f"{100 * x.mean():.1f} ± {100 * ci95_tasks(x):.1f}" for x in found.T)))
            print(*lines[-1], sep="  ", file=sys.stderr, flush=True)
    print(markdown_table(lines), end="")


def tested(learner: cx.MetaLearner, params: Any, sampler: cx.Sampler, episodes: int) -> Any:
    """Accuracies ``[episodes, 3]`` with query images in the batches of ``BATCHES``."""
    way, _, query = sampler.shape

    def measure(params, episode):
        adapted = learner.adapt(params, episode.support_images, episode.support_labels)

        def accuracy_in_batches_of(size):
            images = episode.query_images.reshape(-1, size, *episode.query_images.shape[1:])
            logits = jax.lax.map(lambda batch: learner.predict(params, adapted, batch), images)
            return accuracy(logits.reshape(way * query, -1), episode.query_labels)

        return jnp.stack([accuracy_in_batches_of(size) for size in (1, query, way * query)])

    return over_episodes(measure, sampler.batch, episodes, parallel.task_mesh())(params)


if __name__ == "__main__":
    main(sys.argv[1:])
