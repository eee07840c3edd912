"""CxGrad's factors, and how far they depend on the task. The paper has no such figure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cxgrad_jax import analysis
from cxgrad_jax.analysis._features import at_own_statistics
from cxgrad_jax.evaluation import paired
from cxgrad_jax.learners import accuracy, default_labels, split_by_label
from cxgrad_jax.report.figures.measured import measured
from cxgrad_jax.report.figures.style import forget, legend, panels, plain, plain_numbers, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.report.study import Study, over_episodes_of, sampler_of, test_store, write_numbers
from cxgrad_jax.report.tables import p_value, percent_mean, percent_with
from cxgrad_jax.training import build

TITLE = "The factors and their dependence on the task"


def sections(study: Study) -> list[Section]:
    """If no run has factors, there is no section."""
    number = study.options.episodes
    episodes_at = sampler_of(study, test_store(study)).batch
    runs = {run.name: run for run in study.runs if run.config.learner.name in ("cxgrad", "cxgrad_explicit")}

    def pairs(indices):
        return episodes_at(indices), episodes_at((indices + 1) % number)

    def measure(run):
        params = run.restore(run.best)
        scaled = split_by_label(params["model"], default_labels)[2]
        evaluator = over_episodes_of(study, run, with_other_factors(run), number, draw=pairs, title="conditioning")
        return *evaluator(params), [path.removesuffix("/kernel") for path in scaled]

    found, missing = measured(runs.values(), measure)
    if not found:
        forget(study.folder, "conditioning", *(f"conditioning_{kind}" for kind in ("accuracy", "factors", "context")))
        return [Section(TITLE, None, missing)] if missing else []
    gamma = {name: conditions.gamma for name, (conditions, _, _) in found.items()}
    norms = {name: conditions.context_norm for name, (conditions, _, _) in found.items()}
    accuracies = {name: by_kind for name, (_, by_kind, _) in found.items()}
    layers = {name: kernels for name, (_, _, kernels) in found.items()}
    rates = {name: runs[name].config.learner.inner_lr for name in found}
    write_numbers(
        study, "conditioning_accuracy", ("run", "factors", "episode", "accuracy"),
        ((name, kind, episode, value) for name, by_kind in accuracies.items()
         for kind, values in by_kind.items() for episode, value in enumerate(values)),
    )  # fmt: skip
    write_numbers(
        study, "conditioning_factors", ("run", "episode", "step", "kernel", "factor"),
        ((name, e, s + 1, layers[name][i], value) for name, values in gamma.items()
         for (e, s, i), value in np.ndenumerate(values)),
    )  # fmt: skip
    write_numbers(
        study, "conditioning_context", ("run", "episode", "step", "norm"),
        ((name, e, s + 1, value) for name, values in norms.items() for (e, s), value in np.ndenumerate(values)),
    )  # fmt: skip
    explained = [
        f"Left: the factors by kernel, mean over {number} test episodes; the lines of a run are its inner steps, later "
        "ones darker. Middle: their standard deviation over tasks, relative to the mean, in the step where it is "
        "largest. Right: norm of the context as each step uses it, median and 95 % of the tasks.",
        "The rate by direction is alpha over the mean of the squared factor: a kernel of norm gamma moves by that "
        "times the gradient with respect to its direction.",
    ]
    worth = [
        f"Query accuracy, %, with its 95 % interval over {number} test episodes, when the inner loop runs with the "
        "factors that the task's own context generates, with those of the context zero, which all tasks share, and "
        "with the next episode's. Differences are own minus other on the same episodes, in percentage points, with a "
        "paired t-test. The first difference is all that conditioning on the task brings at test time.",
    ]
    image = save(draw(gamma, norms, layers), study.folder, "conditioning")
    return [
        Section(TITLE, image, explained + missing, factor_table(gamma, rates, layers)),
        Section("What conditioning on the task is worth", None, worth, worth_table(accuracies)),
    ]


def factor_table(
    gamma: Mapping[str, np.ndarray], rates: Mapping[str, float], layers: Mapping[str, Sequence[str]]
) -> list[tuple[str, ...]]:
    """A line for each run and kernel. The spread is that of the step with the largest one."""
    table = [("run", "kernel", "factor", "spread over tasks", "spread / mean", "inner rate by direction")]
    for name, values in gamma.items():
        mean, spread = values.mean(axis=0), values.std(axis=0)  # [steps, L]
        for i, layer in enumerate(layers[name]):
            rate, worst = rates[name] / (values[..., i] ** 2).mean(), np.argmax(spread[:, i] / mean[:, i])
            largest, relative = spread[worst, i], spread[worst, i] / mean[worst, i]
            table.append((
                name, layer, f"{mean[:, i].mean():.4g}", f"{largest:.3g}", f"{relative:.3g}", f"{rate:.3g}",
            ))  # fmt: skip
    return table


def worth_table(accuracies: Mapping[str, Mapping[str, np.ndarray]]) -> list[tuple[str, ...]]:
    """A line for each run, from accuracies ``[episodes]`` by run and kind."""
    table: list[tuple[str, ...]] = [
        ("run", "own factors", "those of the context zero", "difference", "p", "another task's", "difference", "p")
    ]
    for name, by_kind in accuracies.items():
        line = [name, percent_mean(by_kind["own"])]
        for kind in ("zero", "other"):
            test = paired(by_kind["own"], by_kind[kind])
            difference = percent_with(test["difference"], test["difference_ci95"], "+.3f")
            line += [percent_mean(by_kind[kind]), difference, p_value(test["p_value"])]
        table.append(tuple(line))
    return table


def with_other_factors(run: MeasuredRun) -> Callable[..., Any]:
    """Makes ``(learner, params, (episode, another)) -> (Conditioning, accuracies)`` with own, shared, other factors."""
    model, settings = build.build_model(run.config), run.config.learner

    def measure(learner, params, pair):
        episode, another = pair
        own, other = (analysis.conditioning(learner, params, each) for each in (episode, another))
        usual = learner.adapt(params, episode.support_images, episode.support_labels)
        shared = jnp.broadcast_to(own.gamma_at_zero, own.gamma.shape)

        def accuracy_with(gamma):
            adapted = analysis.adapt_with_factors(
                model, params, episode.support_images, episode.support_labels, gamma,
                inner_lr=settings.inner_lr, explicit=settings.name == "cxgrad_explicit",
            )  # fmt: skip
            adapted = at_own_statistics(learner, usual, adapted, episode.support_images)
            return accuracy(learner.predict(params, adapted, episode.query_images), episode.query_labels)

        factors = {"own": own.gamma, "zero": shared, "other": other.gamma}
        return own, {kind: accuracy_with(gamma) for kind, gamma in factors.items()}

    return measure


def draw(
    gamma: Mapping[str, np.ndarray], norms: Mapping[str, np.ndarray], layers: Mapping[str, Sequence[str]]
) -> Figure:
    """Draws factors by layer and step, their spread over tasks relative to the mean, and the context's norm by step.

    Args:
      gamma: the factors by run, ``[episodes, steps, L]``.
      norms: the context's norms by run, ``[episodes, steps]``.
      layers: the names of the L scaled kernels by run. Runs may have different ones.
    """
    figure, axes = panels(1, 3, 10.5, 3.4)
    factors, spread, context = axes[0]
    every = list(dict.fromkeys(layer for kernels in layers.values() for layer in kernels))
    for i, (run, values) in enumerate(gamma.items()):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        places = [every.index(layer) for layer in layers[run]]
        for s in range(values.shape[1]):
            factors.plot(places, mean[s], **style(i), alpha=0.35 + 0.65 * (s + 1) / values.shape[1])
        spread.plot(places, (deviation / mean).max(axis=0), **style(i))
        middle, low, high = np.quantile(norms[run], [0.5, 0.025, 0.975], axis=0)
        steps = np.arange(1, len(middle) + 1)
        context.errorbar(steps, middle, [middle - low, high - middle], capsize=3, **style(i))
    plain_numbers(factors)
    for axis in (spread, context):
        if np.isfinite(axis.dataLim.minposy):  # a logarithmic axis of zeros alone would be empty, with a warning
            axis.set_yscale("log")
    for axis, title in ((factors, "factor γ, mean over tasks"), (spread, "spread over tasks / mean, largest step")):
        names = [plain(layer) for layer in every]
        axis.set_xticks(range(len(every)), names, rotation=30 if len(every) < 6 else 90, ha="right")
        axis.set_title(title, fontsize=10)
    context.set(xlabel="inner step", xticks=range(1, max(values.shape[1] for values in norms.values()) + 1))
    context.set_title("norm of the context, 95 % of tasks", fontsize=10)
    legend(factors, [(run, style(i)) for i, run in enumerate(gamma)], fontsize=8)
    return figure
