"""Draws the README's pictures.

python docs/pictures.py scheme                       docs/cxgrad.png: the inner loop of CxGrad
python docs/pictures.py layers                       docs/layers.png: the layers of the package, from its imports
python docs/pictures.py curve FILE.png RUN [RUN …]   validation accuracy over iterations, from each RUN/metrics.jsonl
"""

import json
import sys
import textwrap
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from cxgrad_jax.training.metrics_file import read_metrics

matplotlib.use("Agg")
PACKAGE = Path(__file__).parents[1] / "cxgrad_jax"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart by colour-blind readers, too


def curve(path: Path, runs: list[Path]) -> None:
    """Validation accuracy with the 95 % interval over tasks, one line a run, the final test accuracy in the legend."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for run, colour, marker in zip(runs, COLOURS, "osD^", strict=False):
        config = json.loads((run / "config.json").read_text())
        results = json.loads((run / "results.json").read_text())
        records = [record for record in read_metrics(run / "metrics.jsonl") if "val_accuracy" in record]
        iterations = [record["iteration"] for record in records]
        accuracy = [100 * record["val_accuracy"] for record in records]
        interval = [100 * record["val_ci95_tasks"] for record in records]
        test = f"test {100 * results['test_accuracy']:.2f} ± {100 * results['test_ci95_tasks']:.2f} %"
        label = f"{ {'cxgrad': 'CxGrad', 'maml': 'MAML'}[config['learner']['name']] } ({test})"
        axes.errorbar(iterations, accuracy, interval, label=label, color=colour, marker=marker, ms=4, capsize=2)
    episode = config["episode"]
    axes.set_title(f"{config['data']['name']}, {episode['way']}-way {episode['shot']}-shot, Conv-4", fontsize=10)
    axes.set_xlabel("outer iteration")
    axes.set_ylabel("validation accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def layers(path: Path) -> None:
    """The layers of the package as boxes of modules with their lines, and the imports between them as arrows."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from test_imports import LAYERS, MODULES, imports, layer

    members: dict[int, dict[str, int]] = {height: {} for height in range(len(LAYERS))}
    counts: dict[tuple[int, int], int] = {}  # of imports, by the upper and the lower layer
    for module, file in MODULES.items():
        height = layer(module)
        inside = file.relative_to(PACKAGE).parts
        first, *deeper = inside[1:] if LAYERS[height] == inside[0] else inside
        if first == "__init__.py":
            continue
        name, lines = first + "/" * bool(deeper), len(file.read_text(encoding="utf-8").splitlines())
        members[height][name] = members[height].get(name, 0) + lines
        for other in imports(module, everywhere=True):
            if layer(other) != height:
                counts[height, layer(other)] = counts.get((height, layer(other)), 0) + 1
    words = ["   ".join(f"{name}\u00a0{lines:,}" for name, lines in members[i].items()) for i in members]
    texts = [textwrap.wrap(each, 112) for each in words]
    heights = [8 + 4.2 * len(text) for text in texts]
    bottoms = [sum(heights[:i]) + 6 * i for i in members]
    figure, axes = plt.subplots(figsize=(9.2, 0.056 * (bottoms[-1] + heights[-1])), layout="constrained")
    axes.set_xlim(0, 100)
    axes.set_ylim(-1, bottoms[-1] + heights[-1] + 5)
    axes.axis("off")
    for i, (bottom, size, colour) in enumerate(zip(bottoms, heights, COLOURS, strict=True)):
        axes.add_patch(plt.Rectangle((2, bottom), 78, size, facecolor=colour + "22", edgecolor=colour))
        title = f"{LAYERS[i]}, {sum(members[i].values()):,} lines"
        axes.text(4, bottom + size - 2, title, va="top", weight="bold", color=colour, fontsize=11)
        axes.text(4, bottom + size - 7, "\n".join(texts[i]), va="top", fontsize=8.5, linespacing=1.5)
    for i, ((above, below), number) in enumerate(sorted(counts.items())):
        x, start, end = 82.5 + 2.9 * i, bottoms[above] + heights[above] / 2, bottoms[below] + heights[below] / 2
        axes.annotate("", (x, end), (x, start), arrowprops={"arrowstyle": "->", "color": COLOURS[above], "lw": 1.5})
        axes.text(x + 0.4, (start + end) / 2, str(number), fontsize=9, color=COLOURS[above])
    axes.text(98, bottoms[-1] + heights[-1] + 1, "imports from layer to layer", fontsize=9, ha="right")
    figure.savefig(path, dpi=130)


def scheme(path: Path) -> None:
    """The inner loop of CxGrad as boxes and arrows."""
    figure, axes = plt.subplots(figsize=(9.2, 3.3), layout="constrained")
    axes.set_xlim(0, 100)
    axes.set_ylim(-2, 35)
    axes.axis("off")
    boxes = {
        "context": (10, 27, "context $\\nu$\nstarts at 0, one a task", COLOURS[1]),
        "gamma": (36, 27, "$\\gamma = \\mathrm{softplus}(\\mathrm{MLP}(\\nu))$\none factor a convolution", COLOURS[1]),
        "kernel": (10, 8, "kernels $w_\\ell$\nmeta-learned start", COLOURS[0]),
        "scaled": (
            36,
            8,
            "$\\hat w_\\ell = \\gamma_\\ell\\, w_\\ell / \\|w_\\ell\\|$\nsame output after the norm",
            COLOURS[0],
        ),
        "loss": (63, 17.5, "support loss\none backward pass", "#555555"),
        "step": (
            89,
            8,
            "$w \\leftarrow \\hat w - \\alpha\\, \\nabla_{\\hat w} L$\ngradient $\\propto 1/\\gamma$",
            COLOURS[0],
        ),
        "nu": (89, 27, "$\\nu \\leftarrow \\nu - \\beta\\, \\nabla_{\\nu} L$", COLOURS[1]),
    }
    for x, y, text, colour in boxes.values():
        style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour, "linewidth": 1.6}
        axes.text(x, y, text, ha="center", va="center", fontsize=9.5, bbox=style)

    def arrow(start, end, bend=0.0):
        properties = {"arrowstyle": "-|>", "color": "#333333", "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", xy=end, xytext=start, arrowprops=properties)

    arrow((20.5, 27), (24, 27))
    arrow((36, 23.2), (36, 12))
    arrow((18.5, 8), (23.5, 8))
    arrow((48.5, 9.5), (57, 14))
    arrow((69, 14), (78, 9.5))
    arrow((69, 21), (79.5, 26))
    arrow((89, 3.8), (10, 3.8), bend=-0.06)
    arrow((89, 30.2), (10, 31), bend=0.06)
    axes.text(50, -1.2, "repeat S steps, then predict the query set with the last $w$", ha="center", fontsize=9)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    if sys.argv[1:2] == ["scheme"] and len(sys.argv) == 2:
        scheme(Path(__file__).with_name("cxgrad.png"))
    elif sys.argv[1:2] == ["layers"] and len(sys.argv) == 2:
        layers(Path(__file__).with_name("layers.png"))
    elif sys.argv[1:2] == ["curve"] and len(sys.argv) > 3:
        curve(Path(sys.argv[2]), [Path(run) for run in sys.argv[3:]])
    else:
        sys.exit(__doc__)
