"""Pages on predictions of photos. Each is one HTML file without scripts, for phones, keyboards and screen readers."""

import base64
import html
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxgrad_jax.analysis._calibration import calibration_error, reliability
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_whole
from cxgrad_jax.photos import NONE, Classifier, Prediction, thumbnail

MOST_PICTURES = 500  # the most pictures of a page, which then has about 4 MB
BINS = 5  # the number of ranges of the probability in the table on calibration

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 0 auto; padding: 1rem; }
a:focus-visible, summary:focus-visible { outline: 3px solid Highlight; outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; list-style: none; padding: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .5rem 0; }
caption { text-align: left; padding: .3rem 0; } th, td { padding: .3rem .7rem; border-bottom: 1px solid #8888; }
td { text-align: right; } th { text-align: left; } td a { display: inline-block; min-width: 1.5rem; }
.right { font-weight: bold; } summary { cursor: pointer; padding: .5rem 0; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem; padding: 0; }
.photos li { list-style: none; } figure { margin: 0; } figcaption { overflow-wrap: anywhere; }
img { width: 100%; height: 9.5rem; object-fit: contain; background: #8882; }
"""


class Checked(NamedTuple):
    """Predictions of photos whose classes are known.

    Attributes:
      predictions: the predictions for the photos.
      truths: the names of their classes, or ``NONE`` for photos of no class of the classifier.
    """

    predictions: Sequence[Prediction]
    truths: Sequence[str]

    def known(self) -> "Checked":
        """The predictions of photos whose class the classifier knows."""
        pairs = [pair for pair in zip(self.predictions, self.truths, strict=True) if pair[1] != NONE]
        return Checked([prediction for prediction, _ in pairs], [truth for _, truth in pairs])

    def accuracy(self) -> float:
        """Share of the photos whose best class is the true one."""
        return float(np.mean(self.right()))

    def recall(self) -> dict[str, tuple[int, int]]:
        """For each class, how many photos were recognised and how many there are."""
        pairs = list(zip(self.predictions, self.truths, strict=True))
        names = dict.fromkeys(self.truths)
        return {
            name: (sum(p.best == name == truth for p, truth in pairs), sum(truth == name for _, truth in pairs))
            for name in names
        }

    def right(self) -> np.ndarray:
        """Whether the best class of each photo is the true one, ``[N]``."""
        return np.array([p.best == truth for p, truth in zip(self.predictions, self.truths, strict=True)])

    def reliability(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Photos, share that was right and mean probability in each range of the probability, ``[BINS]``."""
        return reliability(np.array([p.probability for p in self.predictions]), self.right(), BINS)

    def calibration(self) -> list[tuple[float, float, int, float, float]]:
        """For each range that has photos: its ends, photos, mean probability, and share that was right."""
        counts, right, probability = self.reliability()
        return [
            (i / BINS, (i + 1) / BINS, int(counts[i]), float(probability[i]), float(right[i]))
            for i in np.flatnonzero(counts)
        ]

    def calibration_error(self) -> float:
        """Expected calibration error: the mean distance between probability and share that was right."""
        return calibration_error(*self.reliability())


def check_page(path: Path, classifier: Classifier, checked: Checked) -> None:
    """Writes the page of ``cxgrad photos check``: accuracy, recall, confusion, calibration, the wrong photos.

    Raises:
      UserError: the file cannot be written.
    """
    known = checked.known()
    wrong: dict[tuple[str, str], list[Prediction]] = {}
    for prediction, truth in zip(checked.predictions, checked.truths, strict=True):
        if prediction.label != truth:
            wrong.setdefault((truth, prediction.label), []).append(prediction)
    anchors = {pair: f"wrong-{number}" for number, pair in enumerate(sorted(wrong))}

    confusion = _confusion(classifier, checked, anchors)
    recall = _table(
        "Of each class, how many photos had it as their best class.",
        ("class", "recognised", "photos"),
        [(name, f"{100 * right / count:.0f} %", str(count)) for name, (right, count) in known.recall().items()],
    )
    calibration = _table(
        f"Probabilities against the share that was right. Expected calibration error {known.calibration_error():.3f}.",
        ("probability", "photos", "told", "right"),
        [
            (f"{100 * low:.0f} to {100 * high:.0f} %", str(count), f"{100 * probability:.0f} %", f"{100 * right:.0f} %")
            for low, high, count, probability, right in known.calibration()
        ],
    )
    pictures = _Pictures()
    groups = "".join(
        f'<section id="{anchors[pair]}" tabindex="-1"><h3>{html.escape(f"{pair[0]}, called {pair[1]}")}</h3>'
        f"{pictures.of(sorted(wrong[pair], key=lambda p: -p.probability))}</section>"
        for pair in sorted(wrong)
    )
    sections = (
        ("recall", "Classes", recall), ("confusion", "Confusion", confusion),
        ("calibration", "Confidence", calibration),
        ("wrong", "Wrong photos", (groups or "<p>There is none.</p>") + pictures.note()),
    )  # fmt: skip
    right = round(known.accuracy() * len(known.truths))
    introduction = [f"{right} of {len(known.truths)} photos had the right class as their best: accuracy "
                    f"{100 * known.accuracy():.1f} %."]  # fmt: skip
    refused = sum(p.label == NONE for p in known.predictions)
    introduction.append(f"{refused} of them were called “{NONE}”.")
    _write(path, "Check of a classifier of photos", introduction, sections)


def _confusion(classifier: Classifier, checked: Checked, anchors: dict[tuple[str, str], str]) -> str:
    """The table of confusion. A number that is not 0 or right links to ``anchors``, by class and label."""
    told = Counter(zip(checked.truths, (p.label for p in checked.predictions), strict=True))
    rows = [*classifier.class_names, *([NONE] if NONE in checked.truths else [])]
    columns = [*classifier.class_names, NONE]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = ""
    for truth in rows:
        cells = ""
        for label in columns:
            count = told[truth, label]
            spoken = html.escape(f"{count} photos of {truth} called {label}", quote=True)
            if truth == label:
                cells += f'<td class="right">{count}</td>'
            elif count:
                cells += f'<td><a href="#{anchors[truth, label]}" aria-label="{spoken}">{count}</a></td>'
            else:
                cells += "<td>0</td>"
        body += f'<tr><th scope="row">{html.escape(truth)}</th>{cells}</tr>'
    return (
        '<div class="wide" role="region" aria-label="Confusion" tabindex="0"><table><caption>Rows: what the photos '
        "show. Columns: what the classifier said. A number leads to its photos.</caption>"
        f'<tr><th scope="col">is \\ was called</th>{head}</tr>{body}</table></div>'
    )


def predictions_page(path: Path, predictions: Sequence[Prediction], unreadable: Sequence[str] = ()) -> None:
    """Writes the page of ``cxgrad photos predict``: the photos by label, the least certain first.

    Raises:
      UserError: the file cannot be written.
    """
    by_label: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        by_label.setdefault(prediction.label, []).append(prediction)
    pictures, body = _Pictures(), ""
    for label in sorted(by_label, key=lambda label: (label == NONE, label)):
        group = sorted(by_label[label], key=lambda p: p.probability)
        body += (
            f"<details open><summary><strong>{html.escape(label)}</strong>, {len(group)} "
            f"{'photo' if len(group) == 1 else 'photos'}</summary>{pictures.of(group)}</details>"
        )
    sections = [("photos", "Photos", body + pictures.note())]
    if unreadable:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in unreadable)
        sections.append(("unreadable", "Files that could not be read", f"<ul>{lines}</ul>"))
    introduction = [f"{len(predictions)} photos. Of each class the least certain come first."]
    _write(path, "Predictions of photos", introduction, sections)


class _Pictures:
    """Thumbnails with captions, until the page has enough of them."""

    def __init__(self):
        self.shown = self.left_out = 0

    def of(self, predictions: Iterable[Prediction]) -> str:
        items = ""
        for p in predictions:
            name = "/".join(Path(p.file).parts[-2:])
            second = f"{p.runner_up} {100 * p.runner_up_probability:.0f} %"
            caption = f"{name}: {p.best} {100 * p.probability:.0f} %, then {second}"
            image = ""
            if self.shown < MOST_PICTURES:
                try:
                    data = base64.b64encode(thumbnail(Path(p.file))).decode()
                    image = f'<img alt="{html.escape(name, quote=True)}" src="data:image/jpeg;base64,{data}">'
                    self.shown += 1
                except UserError:  # the file has gone since
                    pass
            else:
                self.left_out += 1
            items += f"<li><figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure></li>"
        return f'<ul class="photos">{items}</ul>'

    def note(self) -> str:
        return f"<p>{self.left_out} more photos are listed without their picture.</p>" if self.left_out else ""


def _write(path: Path, title: str, introduction: Sequence[str], sections: Sequence[tuple[str, str, str]]) -> None:
    links = "".join(f'<li><a href="#{key}">{html.escape(heading)}</a></li>' for key, heading, _ in sections)
    body = "".join(
        f'<section id="{key}" tabindex="-1"><h2>{html.escape(heading)}</h2>{content}</section>'
        for key, heading, content in sections
    )
    paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in introduction)
    write_whole(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<a class="skip" href="#main">Skip to the content</a><header><h1>{html.escape(title)}</h1></header>'
        f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>\n<main id="main" tabindex="-1">{paragraphs}{body}'
        "</main>\n</body></html>\n",
    )


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    headings = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>' + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return f'<div class="wide"><table><caption>{html.escape(caption)}</caption><tr>{headings}</tr>{body}</table></div>'
