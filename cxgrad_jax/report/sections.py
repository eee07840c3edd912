"""The parts of the report: each measures the runs, writes the numbers (CSV) and the picture, and says what is shown."""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from cxgrad_jax.analysis._cka import cka
from cxgrad_jax.analysis._conditioning import adapt_with_factors, conditioning
from cxgrad_jax.analysis._embeddings import embeddings, joint_tsne
from cxgrad_jax.analysis._landscape import landscape, multiples
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.episodes import HostDrawer
from cxgrad_jax.learners import accuracy, default_labels, split_by_label
from cxgrad_jax.metrics import ci95_tasks, paired, read_metrics
from cxgrad_jax.report import figures
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.runs import Run
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.testing import over_episodes

RECORDED = "train_inner_gradient_norm/"


def gradient_norms_over_training(runs: Sequence[Run], folder: Path) -> Section:
    """Figure 2, of what training recorded."""
    norms, iterations, remarks, lines = {}, {}, [], []
    for run in runs:
        records = [each for each in read_metrics(run.workdir / "metrics.jsonl") if "train_loss" in each]
        layers = [name.removeprefix(RECORDED) for name in records[-1] if name.startswith(RECORDED)] if records else []
        if not layers:
            remarks.append(f"{run.name} is not shown: its metrics.jsonl has no norms of inner gradients.")
            continue
        norms[run.name] = {layer: np.asarray([each[RECORDED + layer] for each in records]) for layer in layers}
        iterations[run.name] = np.asarray([each["iteration"] for each in records])
        for layer, values in norms[run.name].items():
            lines += [(run.name, layer, *each) for each in zip(iterations[run.name], values, strict=True)]
    title = "Gradient norms in the inner loop, over training (Figure 2)"
    if not norms:
        return Section(title, None, remarks)
    write_csv(folder / "gradient_norms.csv", ("run", "layer", "iteration", "norm"), lines)
    picture = figures.save(figures.gradient_norms(norms, iterations), folder, "gradient_norms")
    table = [("mean over the last tenth of training", *next(iter(norms.values())))]
    for name, layers in norms.items():
        table.append((name, *(f"{values[-max(1, len(values) // 10) :].mean():.3g}" for values in layers.values())))
    caption = [
        "l2 norm of the support gradient by each adapting kernel, averaged over inner steps and the training tasks "
        "of an iteration; lines are means over a fiftieth of the training. Of CxGrad the gradients are those by the "
        "scaled kernels, which its updates use. The head is its kernel without the bias.",
    ]
    return Section(title, picture, caption + remarks, table)


def feature_similarity(
    runs: Sequence[Run], options: ConfigDict, store: ImageStore, mesh: Mesh, folder: Path
) -> Section:
    """Figure 3."""
    means, intervals, lines = {}, {}, []
    for run in shown(runs):
        function = function_of(run, cka)
        values = over_episodes(function, drawer(run, store), options.episodes, mesh, f"CKA, {run.name}")(best(run))
        values = {layer: values[layer] for layer in layer_order(run, store)}
        means[run.name] = {layer: of_tasks.mean() for layer, of_tasks in values.items()}
        intervals[run.name] = {layer: ci95_tasks(of_tasks) for layer, of_tasks in values.items()}
        for layer, of_tasks in values.items():
            lines += [(run.name, layer, episode, value) for episode, value in enumerate(of_tasks)]
    layers = list(dict.fromkeys(layer for of_run in means.values() for layer in of_run))
    write_csv(folder / "cka.csv", ("run", "layer", "episode", "cka"), lines)
    picture = figures.save(figures.cka(layers, means, intervals), folder, "cka")
    table = [("mean ± 95 % interval", *layers)]
    for name, of_run in means.items():
        cells = (f"{of_run[k]:.4f} ± {intervals[name][k]:.4f}" if k in of_run else "–" for k in layers)
        table.append((name, *cells))
    caption = [
        "Linear CKA (biased estimator) between features of the query images before and after adaptation, mean and "
        f"95 % interval over {options.episodes} test episodes. A layer's features are what the next layer receives; "
        "those of the head are the logits. 1 means that adaptation left the representation as it was, but for "
        "rotation and scale.",
    ]
    return Section("Feature similarity before and after adaptation (Figure 3)", picture, caption + remarks(runs), table)


def embedding_pictures(
    runs: Sequence[Run], options: ConfigDict, stores: dict[str, ImageStore], folder: Path
) -> Section:
    """Figure 4."""
    planes: dict[str, dict[str, Any]] = {name: {} for name in stores}
    lines, index = [], options.embedding_episode
    labels = configuration.episode_shape(runs[0].config).labels()[1]
    for name, store in stores.items():
        for run in tqdm(shown(runs), desc=f"t-SNE, {name}", unit="run"):
            episode = jax.tree.map(lambda x: x[0], drawer(run, store)(np.asarray([index])))
            first, last = jax.jit(function_of(run, embeddings))(best(run), episode)
            plane = joint_tsne(np.asarray(first), np.asarray(last), options.perplexity, run.config.seed)
            planes[name][run.name] = plane
            for when, half in zip(("before", "after"), plane, strict=True):
                lines += [(name, run.name, when, i, c, *xy) for i, (c, xy) in enumerate(zip(labels, half, strict=True))]
    write_csv(folder / "embeddings.csv", ("data", "run", "when", "query_image", "class", "x", "y"), lines)
    picture = figures.save(figures.embeddings(planes, labels, list(stores)), folder, "embeddings")
    caption = [
        f"t-SNE of what the head receives of the {len(labels)} query images of test episode {index}, before and after "
        f"adaptation. Both are fitted together (scikit-learn, perplexity {options.perplexity:g}, seed "
        f"{runs[0].config.seed}, start by PCA), so that the two panels of a run share a plane; those of different runs "
        f"do not. A colour and marker is a class. Rows: {', '.join(stores)}.",
    ]
    title = "Features of the last block before and after adaptation (Figure 4)"
    return Section(title, picture, caption + remarks(runs))


def landscape_over_training(
    runs: Sequence[Run], options: ConfigDict, store: ImageStore, mesh: Mesh, folder: Path
) -> Section:
    """Figure 5."""
    measures: dict[str, dict[str, np.ndarray]] = {}
    iterations, lines, rates = {}, [], multiples(0.01)
    for run in shown(runs):
        iterations[run.name] = [0, *run.iterations]
        evaluator = over_episodes(
            function_of(run, landscape), drawer(run, store), options.landscape_episodes, mesh
        )  # fmt: skip
        found = []
        for iteration in tqdm(iterations[run.name], desc=f"landscape, {run.name}", unit="checkpoint"):
            each = evaluator(run.restore(iteration))
            found.append(jax.tree.map(lambda x: x.mean(axis=(0, 1)), each))
            lines += [
                (run.name, iteration, rate, *values)
                for rate, *values in zip(rates, found[-1].loss, found[-1].distance, strict=True)
            ]
            lines.append((run.name, iteration, "", "", "", found[-1].smoothness))
        measures[run.name] = {
            name: np.stack([getattr(each, name) for each in found]) for name in ("loss", "distance", "smoothness")
        }
    head = ("run", "iteration", "rate", "loss", "distance", "smoothness")
    write_csv(folder / "landscape.csv", head, lines)
    picture = figures.save(figures.landscape(iterations, measures), folder, "landscape")
    table: list[tuple[str, ...]] = [("last checkpoint", "loss, from – to", "distance, from – to", "smoothness")]
    for name, of_run in measures.items():
        ranges = (f"{of_run[k][-1].min():.3g} – {of_run[k][-1].max():.3g}" for k in ("loss", "distance"))
        table.append((name, *ranges, f"{of_run['smoothness'][-1]:.3g}"))
    caption = [
        f"The support loss around every state of the inner loop, mean over {options.landscape_episodes} test "
        "episodes and the inner steps, at each checkpoint at hand and before training. From a state, points are "
        f"reached along the gradient with the rates {rates[0]:g} to {rates[-1]:g} (Eq. 9); bands span these rates, "
        "lines are their mean. (a) loss there, Eq. 10; (b) l2 distance of the gradient there from the one at the "
        "state, Eq. 11; (c) the largest such distance over the length of the move, Eq. 12. Of CxGrad: by the scaled "
        "kernels and the head, with the factors of the step held fixed.",
    ]
    title = "The landscape of the inner loop, over training (Figure 5)"
    return Section(title, picture, caption + remarks(runs), table)


def conditioning_of_runs(
    runs: Sequence[Run], options: ConfigDict, store: ImageStore, mesh: Mesh, folder: Path
) -> list[Section]:
    """What CxGrad's factors owe to the task; no section where no run has any."""
    able = [run for run in runs if run.config.learner.name in ("cxgrad", "cxgrad_explicit")]
    if not able:
        return []
    gamma, norms, layers, lines = {}, {}, [], []
    effect: list[tuple[str, ...]] = [
        ("run", "own factors", "those of the context zero", "difference", "p", "another task's", "difference", "p")
    ]
    factors = [("run", "kernel", "factor", "spread over tasks", "spread / mean", "inner rate by direction")]
    for run in able:
        draw, params = drawer(run, store), best(run)
        pairs = lambda indices, draw=draw: (draw(indices), draw((indices + 1) % options.episodes))  # noqa: E731
        function = _with_other_factors(run)
        found, accuracies = over_episodes(function, pairs, options.episodes, mesh, f"conditioning, {run.name}")(params)
        gamma[run.name], norms[run.name] = found.gamma, found.context_norm
        layers = [path.removesuffix("/kernel") for path in split_by_label(params["model"], default_labels)[2]]
        for kind, of_tasks in accuracies.items():
            lines += [(run.name, kind, episode, value) for episode, value in enumerate(of_tasks)]
        row = [run.name, _percent(accuracies["own"])]
        for kind in ("zero", "other"):
            test = paired(accuracies["own"], accuracies[kind])
            row += [
                _percent(accuracies[kind]),
                f"{100 * test['difference']:+.3f} ± {100 * test['difference_ci95']:.3f}", f"{test['p_value']:.3g}",
            ]  # fmt: skip
        effect.append(tuple(row))
        mean, spread = found.gamma.mean(axis=0), found.gamma.std(axis=0)  # [steps, L]
        for i, layer in enumerate(layers):
            rate = run.config.learner.inner_lr / (found.gamma[..., i] ** 2).mean()
            worst = np.argmax(spread[:, i] / mean[:, i])
            factors.append((
                run.name, layer, f"{mean[:, i].mean():.4g}", f"{spread[worst, i]:.3g}",
                f"{spread[worst, i] / mean[worst, i]:.3g}", f"{rate:.3g}",
            ))  # fmt: skip
    write_csv(folder / "conditioning_accuracy.csv", ("run", "factors", "episode", "accuracy"), lines)
    write_csv(
        folder / "conditioning_factors.csv", ("run", "episode", "step", "kernel", "factor"),
        ((name, e, s + 1, layer, values[e, s, i]) for name, values in gamma.items()
         for e, s, (i, layer) in _indices(values, layers)),
    )  # fmt: skip
    write_csv(
        folder / "conditioning_context.csv", ("run", "episode", "step", "norm"),
        ((name, e, s + 1, value) for name, values in norms.items() for (e, s), value in np.ndenumerate(values)),
    )  # fmt: skip
    picture = figures.save(figures.conditioning(gamma, norms, layers), folder, "conditioning")
    explained = [
        f"Left: the factors by kernel, mean over {options.episodes} test episodes, a line an inner step (later ones "
        "darker). Middle: their standard deviation over tasks, relative to the mean, in the step where it is largest. "
        "Right: norm of the context as each step uses it, median and 95 % of the tasks.",
        "The rate by direction is alpha over the mean of the squared factor: a kernel of norm gamma moves by that "
        "times the gradient by its direction.",
    ]
    shares = [
        f"Query accuracy, %, with its 95 % interval over {options.episodes} test episodes, when the inner loop runs "
        "with the factors that the task's own context generates, with those of the context zero, which all tasks "
        "share, and with the next episode's. Differences are own minus other on the same episodes, in points of per "
        "cent, with a paired t-test: the first is all that conditioning on the task brings at test time.",
    ]
    return [
        Section("The factors and their dependence on the task", picture, explained, factors),
        Section("What conditioning on the task is worth", None, shares, effect),
    ]


def _with_other_factors(run: Run):
    """``(params, (episode, another)) -> (Conditioning, accuracies)`` with own, shared and another task's factors."""
    model, settings = configuration.build_model(run.config), run.config.learner

    def measure(params, pair):
        episode, another = pair
        own, other = (conditioning(run.learner, params, each) for each in pair)
        sequences = {
            "own": own.gamma,
            "zero": jnp.broadcast_to(own.gamma_at_zero, own.gamma.shape),
            "other": other.gamma,
        }

        def accuracy_with(gamma):
            task = adapt_with_factors(
                model, params, episode.support_images, episode.support_labels, gamma,
                inner_lr=settings.inner_lr, explicit=settings.name == "cxgrad_explicit",
            )  # fmt: skip
            return accuracy(run.learner.predict(params, task, episode.query_images), episode.query_labels)

        return own, {kind: accuracy_with(gamma) for kind, gamma in sequences.items()}

    return measure


def _indices(values: np.ndarray, layers: Sequence[str]):
    episodes, steps, _ = values.shape
    return ((e, s, each) for e in range(episodes) for s in range(steps) for each in enumerate(layers))


def _percent(accuracies: np.ndarray) -> str:
    return f"{100 * accuracies.mean():.2f} ± {100 * ci95_tasks(accuracies):.2f}"


def shown(runs: Sequence[Run]) -> list[Run]:
    """The runs that adapt parameters."""
    return [run for run in runs if not run.remark]


def remarks(runs: Sequence[Run]) -> list[str]:
    """Why the others are not shown."""
    return [run.remark for run in runs if run.remark]


def function_of(run: Run, measure):
    """``(params, episode) -> measure`` of the run's learner."""
    return lambda params, episode: measure(run.learner, params, episode)


def layer_order(run: Run, store: ImageStore) -> list[str]:
    """The layers as the model calls them; what compiled code returns is in alphabetical order."""
    episode = jax.tree.map(lambda x: x[0], drawer(run, store)(np.arange(1)))
    names: list[str] = []
    jax.eval_shape(lambda params: names.extend(cka(run.learner, params, episode)), best(run))
    return names


def drawer(run: Run, store: ImageStore) -> HostDrawer:
    """Test episodes of the run's seed and shape."""
    return HostDrawer(store, configuration.episode_shape(run.config), run.config.seed, "test")


def best(run: Run) -> Any:
    """Meta-parameters of the checkpoint best in validation."""
    return run.restore(run.best)


def write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)
    os.replace(temporary, path)
