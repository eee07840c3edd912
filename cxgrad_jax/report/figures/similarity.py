"""Figure 3: how much adaptation changes the features of each layer (CKA)."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from matplotlib.figure import Figure

from cxgrad_jax import analysis
from cxgrad_jax.evaluation import ci95_tasks
from cxgrad_jax.report.figures.measured import measured
from cxgrad_jax.report.figures.style import forget, legend, panels, plain, save, style
from cxgrad_jax.report.html import Section
from cxgrad_jax.report.measured_runs import MeasuredRun
from cxgrad_jax.report.study import Study, adapting, over_episodes_of, remarks, sampler_of, test_store, write_numbers
from cxgrad_jax.report.tables import MISSING

TITLE = "Feature similarity before and after adaptation (Figure 3)"


def sections(study: Study) -> list[Section]:
    number = study.options.episodes

    def measure(run):
        values = over_episodes_of(study, run, analysis.cka, number, title="CKA")(run.restore(run.best))
        return {layer: values[layer] for layer in layer_order(study, run)}

    found, missing = measured(adapting(study), measure)
    if not found:
        forget(study.folder, "cka")
        return [Section(TITLE, None, missing + remarks(study))]
    lines = (
        (name, layer, episode, value)
        for name, by_layer in found.items()
        for layer, values in by_layer.items()
        for episode, value in enumerate(values)
    )
    write_numbers(study, "cka", ("run", "layer", "episode", "cka"), lines)
    means = {name: {k: (v.mean(), ci95_tasks(v)) for k, v in by_layer.items()} for name, by_layer in found.items()}
    layers = list(dict.fromkeys(layer for by_layer in means.values() for layer in by_layer))
    table = [("mean ± 95 % interval", *layers)]
    for name, by_layer in means.items():
        table.append((name, *("{:.4f} ± {:.4f}".format(*by_layer[k]) if k in by_layer else MISSING for k in layers)))
    caption = [
        "Linear CKA (biased estimator) between features of the query images before and after adaptation, mean and "
        f"95 % interval over {number} test episodes. A layer's features are what the next layer receives; those of the "
        "head are the logits. 1 means that adaptation left the representation as it was, except for rotation and "
        "scale.",
    ]
    if any(np.isnan(mean) for by_layer in means.values() for mean, _ in by_layer.values()):
        caption.append("nan: in an episode, the features of the layer are the same for all images, or not finite.")
    image = save(draw(layers, means), study.folder, "cka")
    return [Section(TITLE, image, caption + missing + remarks(study), table)]


def layer_order(study: Study, run: MeasuredRun) -> list[str]:
    """The layers in the order of the model's calls. (Compiled code returns them in alphabetical order.)"""
    names: list[str] = []
    episode = sampler_of(study, test_store(study))(0)
    jax.eval_shape(lambda params: names.extend(analysis.cka(run.learner, params, episode)), run.restore(run.best))
    return names


def draw(layers: Sequence[str], means: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Draws CKA over layers with a line for each run, from ``(mean, interval)`` by run and layer."""
    figure, axes = panels(1, 1, 5.2, 3.4)
    missing = (np.nan, np.nan)
    for i, by_layer in enumerate(means.values()):
        values, intervals = zip(*(by_layer.get(layer, missing) for layer in layers), strict=True)
        axes[0, 0].errorbar(range(len(layers)), values, intervals, capsize=3, **style(i))
    axes[0, 0].set_xticks(range(len(layers)), [plain(layer) for layer in layers])
    axes[0, 0].set_ylabel("CKA before and after adaptation")
    legend(axes[0, 0], [(run, style(i)) for i, run in enumerate(means)], fontsize=8)
    return figure
