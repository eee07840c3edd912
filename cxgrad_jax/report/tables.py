"""Writers of numbers and tables in Markdown, LaTeX and CSV."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import ci95_tasks
from cxgrad_jax.files import write_whole
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.transductive import is_transductive

MISSING = "–"
INDUCTIVE = "Inductive: each query image is predicted by itself."
TRANSDUCTIVE = (
    "Transductive: all query images of an episode are seen together, so that a prediction depends on the others. Such "
    "numbers are not comparable with inductive ones."
)


def by_kind(configs: Mapping[str, ConfigDict]) -> dict[str, list[str]]:
    """The names of configurations by kind, ``INDUCTIVE`` or ``TRANSDUCTIVE``, which are the first words of a table.

    The kind of the first configuration comes first.
    """
    kinds: dict[str, list[str]] = {}
    for name, config in configs.items():
        kinds.setdefault(TRANSDUCTIVE if is_transductive(config) else INDUCTIVE, []).append(name)
    return kinds


def percent(share: float | None, form: str = ".2f") -> str:
    """A share in per cent: 0.518 becomes ``"51.80"``, and None becomes a dash."""
    return MISSING if share is None else f"{100 * share:{form}}"


def percent_with(share: float | None, interval: float | None, form: str = ".2f") -> str:
    """A share and its interval in per cent, as ``"51.80 ± 0.46"``, without ± if there is no interval."""
    value = percent(share, form)
    return value if interval is None else f"{value} ± {percent(interval, form.removeprefix('+'))}"


def percent_mean(shares: np.ndarray) -> str:
    """The mean of shares ``[tasks]`` with its 95 % interval."""
    return percent_with(float(shares.mean()), ci95_tasks(shares))


def p_value(p: float | None) -> str:
    """A p-value with four decimals."""
    if p is None:
        return MISSING
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """``lines`` of cells in Markdown. The first line has the headings."""
    rule = [":--", *["--:"] * (len(lines[0]) - 1)]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in [lines[0], rule, *lines[1:]])
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def latex_table(
    lines: Sequence[Sequence[str]], notes: Sequence[str], bold: Collection[tuple[int, int]] = frozenset()
) -> str:
    """``lines`` of cells in LaTeX, for the package booktabs. The first line has the headings.

    Args:
      lines: the lines, whose cells are plain text.
      notes: the caption and footnotes, which become comments above the table.
      bold: the line and column of each cell in bold. Line 0 has the headings.
    """

    def line(i: int) -> str:
        cells = [_latex(cell) for cell in lines[i]]
        return " & ".join(rf"\textbf{{{x}}}" if (i, j) in bold else x for j, x in enumerate(cells)) + r" \\"

    return "\n".join([
        *("% " + " ".join(note.split()) for note in notes),
        rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
        r"\toprule", line(0), r"\midrule", *map(line, range(1, len(lines))), r"\bottomrule",
        r"\end{tabular}", "",
    ])  # fmt: skip


def paper_table(
    headings: Sequence[str],
    rows: Sequence[tuple[str, Sequence[tuple[float, float | None] | None]]],
    notes: Sequence[str],
) -> str:
    """The table of a paper in LaTeX, with cells such as ``33.2 ± 1.1`` and the best of each column in bold.

    Args:
      headings: the headings of all columns, including the column of the methods.
      rows: the method, and for each further column the accuracy and its interval as shares. None is an empty cell.
      notes: those of ``latex_table``.
    """
    lines = [list(headings)]
    for name, cells in rows:
        lines.append([name, *(percent_with(*cell, ".1f") if cell else MISSING for cell in cells)])
    bold = set()
    for j in range(1, len(headings)):
        shown = {i: percent(row[1][j - 1][0], ".1f") for i, row in enumerate(rows, 1) if row[1][j - 1]}  # pyright: ignore
        bold |= {(i, j) for i in shown if float(shown[i]) == max(map(float, shown.values()))}
    return latex_table(lines, notes, bold)


LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$",
    ">": "$>$", "–": "--", **{special: f"\\{special}" for special in "&%$#_{}"},
})  # fmt: skip


def _latex(text: str) -> str:
    return text.translate(LATEX)


def write_tables(folder: Path, name: str, *, md: str, csv: str, tex: str) -> None:
    """Writes ``name.md``, ``name.csv`` and ``name.tex``. If this fails, the first is printed instead of lost."""
    try:
        for kind, content in (("md", md), ("csv", csv), ("tex", tex)):
            write_whole(folder / f"{name}.{kind}", content)
    except UserError:
        print(md, end="", flush=True)
        raise
