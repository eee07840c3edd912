"""The style of figures, which are readable in print and by colour-blind readers."""

import functools
import io
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.files import write_whole

# Okabe and Ito's palette, each colour with a line style and a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 1)))
MARKERS = "osD^vPX"
# Fonts for the letters that matplotlib's own font lacks. Those that the machine has are used.
FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Heiti TC", "Apple SD Gothic Neo",
    "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip
# The forms of a figure, without the time of day.
KINDS = {"svg": {"metadata": {"Date": None}}, "pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 160}}


def style(i: int) -> dict[str, Any]:
    """Colour, line style and marker of the i-th item of a figure. The first 49 are different, even without colour."""
    return {**point_style(i), "linestyle": DASHES[(i + 2 * (i // len(COLOURS))) % len(DASHES)], "markersize": 4}


def point_style(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th item of a figure. The first 49 are different."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


def plain(name: str) -> str:
    """A name as matplotlib draws it as it is: ``$`` begins no formula, and bytes that are not text are escaped."""
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def legend(place: Axes | Figure, items: Iterable[tuple[str, dict[str, Any]]], **options: Any) -> None:
    """Adds the legend of ``(name, style)``.

    The names are given here, because matplotlib leaves out lines whose own label begins with ``_``.
    """
    names, styles = zip(*items, strict=True)
    place.legend([Line2D([], [], **each) for each in styles], [plain(name) for name in names], **options)


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Makes a figure and its axes ``[rows, columns]``. Width and height are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    return figure, axes


def plain_numbers(axis: Axes) -> None:
    """Makes the y axis of positive values readable: plain numbers such as 0.5.

    The scale is logarithmic if the values span a factor of 5. If they spanned less, it would have one tick or none.
    """
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if low > 0 and high / low >= 5:
        steps = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=steps))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def binned(values: np.ndarray, window: int) -> np.ndarray:
    """Means of ``window`` values at a time. A remainder at the end is dropped."""
    return np.asarray(values)[: len(values) // window * window].reshape(-1, window).mean(axis=1)


def forget(folder: Path, *names: str) -> None:
    """Removes the pictures and numbers ``NAME.*`` that an earlier report left and the present one does not write.

    Raises:
      UserError: a file cannot be removed.
    """
    for path in (folder / f"{name}.{kind}" for name in names for kind in (*KINDS, "csv")):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path} cannot be removed: {reason(error)}") from None


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Writes ``name.png``, ``name.svg`` and ``name.pdf``, the same bytes for the same figure.

    Returns:
      The path of the PNG.
    """
    at_hand = {font.name for font in fontManager.ttflist}
    families = [*matplotlib.rcParams["font.family"], *(font for font in FALLBACKS if font in at_hand)]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    options = matplotlib.rc_context({"svg.hashsalt": name, "pdf.fonttype": 42})
    with options, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for kind, keywords in KINDS.items():
            content = io.BytesIO()
            figure.savefig(content, format=kind, **keywords)
            write_whole(folder / f"{name}.{kind}", content.getvalue())
    for each in told:
        if "missing from font" in str(each.message):
            _tell_boxes()
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return folder / f"{name}.png"


@functools.cache
def _tell_boxes() -> None:
    """Says once what matplotlib says for each letter, figure and form."""
    line = "some letters of names are boxes in the pictures, because no known font has them; install Noto Sans CJK"
    print(f"cxgrad_jax: {line}", file=sys.stderr)
