"""``cxgrad photos fit|check|predict|export``: makes a classifier of a folder of labelled photos, and uses it.

    cxgrad photos fit PHOTOS --out shop.safetensors
    cxgrad photos check shop.safetensors TEST
    cxgrad photos predict shop.safetensors FILE_OR_FOLDER ... --csv out.csv --html out.html
    cxgrad photos export shop.safetensors shop.onnx

The exit status is that of ``cxgrad_jax.main``. If some photos cannot be read, ``predict`` writes its files and ends
with 2.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from cxgrad_jax import photos
from cxgrad_jax.arguments import check_seed
from cxgrad_jax.command_line import Parser, a_path, add_verbosity, exit_status, start
from cxgrad_jax.data.datasets.image_folder import is_image, printable
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import check_writable, csv_text, is_stream, write_whole
from cxgrad_jax.photos._backbones import find_backbone
from cxgrad_jax.photos._preprocessing import digest_of

FORMATS = ("onnx", "stablehlo")


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit status."""

    def action():
        given = _parser().parse_args(arguments)
        if not given.command:
            raise UserError("give a command: one of fit, check, predict, export")
        {"fit": _fit, "check": _check, "predict": _predict, "export": _export}[given.command](given)

    return exit_status(action)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="cxgrad photos", description="Classifiers of photos.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    fit = commands.add_parser("fit", help="make a classifier of PHOTOS/CLASS/*.jpg", allow_abbrev=False)
    fit.add_argument("photos", type=a_path, metavar="PHOTOS", help="folder with a folder of photos for each class")
    fit.add_argument("--out", type=a_path, required=True, metavar="FILE", help="the classifier, a safetensors file")
    fit.add_argument(
        "--backbone", default="efficientnet_lite0", metavar="NAME",
        help="efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2; bundled weights; a file that cx.save "
        "wrote; or the folder of a run",
    )  # fmt: skip
    fit.add_argument("--head", default="auto", choices=("auto", "centroid", "logistic"))
    fit.add_argument("--others", type=a_path, metavar="DIR", help="photos of none of the classes, for the threshold")
    fit.add_argument("--seed", type=int, default=0, metavar="N", help="of the splits that the estimate is made with")

    check = commands.add_parser("check", help="compare predictions for other photos with the truth", allow_abbrev=False)
    check.add_argument("classifier", type=a_path, metavar="FILE", help="that fit wrote")
    check.add_argument("photos", type=a_path, metavar="TEST", help="like PHOTOS, with photos that fit has not seen")
    check.add_argument("--html", type=a_path, metavar="FILE", help="the page; NAME_check.html beside the classifier")

    predict = commands.add_parser("predict", help="predict photos", allow_abbrev=False)
    predict.add_argument("classifier", type=a_path, metavar="FILE", help="that fit wrote")
    predict.add_argument("photos", type=a_path, nargs="+", metavar="FILE_OR_FOLDER")
    predict.add_argument("--csv", type=a_path, metavar="FILE", help="the table; without --csv and --html it is printed")
    predict.add_argument("--html", type=a_path, metavar="FILE", help="a page with the photos")

    export = commands.add_parser("export", help="write the classifier for another program", allow_abbrev=False)
    export.add_argument("classifier", type=a_path, metavar="FILE", help="that fit wrote")
    export.add_argument("out", type=a_path, metavar="OUT", help="such as shop.onnx")
    export.add_argument("--format", choices=FORMATS, default="onnx")
    for each in (parser, fit, check, predict, export):
        add_verbosity(each)
    return parser


def _fit(given: argparse.Namespace) -> None:
    weights = os.path.expanduser(given.backbone)
    _check_place(given.out, Path(weights) if os.path.isfile(weights) else None, given.others)
    _tell_left_out(photos.labelled_photos(given.photos).left_out)
    if given.others:
        _tell_left_out(photos.photos_and_left_out(given.others)[1], where="")
    check_seed(given.seed)
    backbone = find_backbone(_backbone(given.backbone))
    if not is_stream(given.out):  # the classifier holds the backbone
        size = sum(array.nbytes for array in jax.tree.leaves(backbone.variables))
        check_writable(given.out.absolute().parent, size)
    with _progress() as progress:
        classifier = photos.fit(
            given.photos, backbone=backbone, head=given.head, others=given.others, seed=given.seed,
            progress=progress, tell=_tell,
        )  # fmt: skip
    classifier.save(given.out)
    for line in summary(classifier, given.out):
        _say(line)


def summary(classifier: photos.Classifier, out: Path) -> list[str]:
    """What ``fit`` prints."""
    told, head = classifier.estimate, classifier.head
    kind = f"logistic regression (C = {head.strength:g})" if head.kind == "logistic" else "cosine to the centroids"
    number = sum(told.photos.values())
    network = f"{classifier.backbone.name} at {classifier.backbone.preprocessing.size} pixels"
    lines = [f"{out}: {len(told.photos)} classes, {number} photos, {network}, {kind}"]
    if told.accuracy is None or told.interval is None:
        return [*lines, told.note]
    low, high = (100 * end for end in told.interval)
    judged = [name for name, recall in told.per_class.items() if recall is not None]
    some = ", ".join(judged[:5]) + (", ..." if len(judged) > 5 else "")
    alone = f", of {some} alone," if len(judged) < len(told.per_class) else ""
    lines.append(f"expected accuracy{alone} {100 * told.accuracy:.1f} % (95 % interval {low:.1f} to {high:.1f} %)")
    histogram = f", colour histogram {100 * told.histogram:.1f} %" if told.histogram is not None else ""
    largest = ""
    if told.largest is not None and len(set(told.photos.values())) > 1:
        largest = f", always the largest class {100 * told.largest:.1f} %"
    lines.append(f"for comparison: chance {100 * told.chance:.1f} %{largest}{histogram}")
    if not told.is_worth_it:
        lines.append("this classifier is NOT better than that; more photos, or other ones, are needed")
    if told.auroc is not None:
        lines.append(f"none of these: AUROC {told.auroc:.2f} with whole classes left out (0.5 is chance)")
    if told.note:
        lines.append(told.note)
    width = max(map(len, ("class", *told.photos)))
    lines.append(f"{'class':<{width}}  photos  unlike  recognised")
    for name, recall in told.per_class.items():
        share = "-" if recall is None else f"{100 * recall:.0f} %"
        lines.append(f"{name:<{width}}  {told.photos[name]:>6}  {told.groups[name]:>6}  {share:>10}")
    return lines


def _check(given: argparse.Namespace) -> None:
    from cxgrad_jax.report.photos import Checked, check_page

    page = given.html or given.classifier.with_name(f"{given.classifier.stem}_check.html")
    _check_place(page, given.classifier)
    classifier = photos.load(given.classifier)
    found = photos.labelled_photos(given.photos, least=1)
    for name in found.class_names:
        if name not in (*classifier.class_names, photos.NONE):
            known = ", ".join(classifier.class_names)
            raise UserError(
                f"{given.photos / name} is not a class of {given.classifier}; expected one of {known}, or "
                f"{photos.NONE!r} for photos of no class"
            )
    _tell_left_out(found.left_out)
    predictions, unreadable = _predictions(classifier, found.paths)
    read = {prediction.file for prediction in predictions}
    truths = [
        found.class_names[label] for path, label in zip(found.paths, found.labels, strict=True) if str(path) in read
    ]
    checked = Checked(predictions, truths)
    known = checked.known()
    if not known.truths:
        raise UserError(f"{given.photos} holds no photo of a class of {given.classifier}")
    check_page(page, classifier, checked)
    _say(f"accuracy {100 * known.accuracy():.1f} % of {len(known.truths)} photos; calibration error "
          f"{known.calibration_error():.3f}")  # fmt: skip
    strangers = len(checked.truths) - len(known.truths)
    refused = sum(prediction.label == photos.NONE for prediction in known.predictions)
    _say(f"{refused} of them were called {photos.NONE!r}")
    if strangers:
        right = sum(p.label == t == photos.NONE for p, t in zip(checked.predictions, checked.truths, strict=True))
        _say(f"{right} of {strangers} photos of no class were called {photos.NONE!r}")
    width = max(map(len, ("class", *classifier.class_names)))
    _say(f"{'class':<{width}}  photos  recognised  most often taken for")
    for name, (right, count) in known.recall().items():
        wrong = [p.best for p, truth in zip(known.predictions, known.truths, strict=True) if truth == name != p.best]
        other = max(sorted(set(wrong)), key=wrong.count) if wrong else "-"
        _say(f"{name:<{width}}  {count:>6}  {100 * right / count:>8.0f} %  {other}")
    again = sum(digest_of(Path(file)) in classifier.digests for file in read)
    if again:
        known_ones = f"{again} of {len(read)} photos are among those that the classifier was made from"
        _say(f"{known_ones}; the accuracy of new ones may be lower")
    _say(f"page: {page}")
    _end(unreadable, len(found.paths))


def _predict(given: argparse.Namespace) -> None:
    for place, other in ((given.csv, given.html), (given.html, None)):
        if place:
            _check_place(place, other, given.classifier, *given.photos)
    classifier = photos.load(given.classifier)
    paths, left_out = photos.photos_and_left_out(given.photos)
    _tell_left_out(left_out, where="")
    predictions, unreadable = _predictions(classifier, paths)
    table = csv_text(photos.Prediction._fields, predictions)
    if given.csv:
        write_whole(given.csv, table)
    if given.html:
        from cxgrad_jax.report.photos import predictions_page

        predictions_page(given.html, predictions, [str(error) for error in unreadable])
    if not given.csv and not given.html:
        print(table, end="")
    for place in (given.csv, given.html):
        if place and not is_stream(place):  # the line would stand in the table
            _say(f"{len(predictions)} photos: {place}")
    _end(unreadable, len(paths))


def _export(given: argparse.Namespace) -> None:
    _check_place(given.out, given.classifier)
    if given.format == "stablehlo":  # it writes the description beside it
        _check_place(given.out.with_name(f"{given.out.name}.json"), given.classifier)
    classifier = photos.load(given.classifier)
    export = photos.export_onnx if given.format == "onnx" else photos.export_stablehlo
    print(export(classifier, given.out))


def _predictions(
    classifier: photos.Classifier, paths: Sequence[Path]
) -> tuple[list[photos.Prediction], tuple[UserError, ...]]:
    """Predicts the photos that can be read. Each of the others gets a line on stderr, and an error that is returned."""
    with _progress() as progress:
        done = iter(range(1, len(paths) + 1))
        found = photos.all_features(classifier.backbone, paths, lambda: progress(next(done), len(paths)))
    for error in found.errors:
        _tell(str(error))
    read = [i for i, row in enumerate(found.features) if row.size and not np.isnan(row[0])]
    predictions = classifier.predict_features([paths[i] for i in read], found.features[read]) if read else []
    return predictions, found.errors


def _say(line: str) -> None:
    """Prints one line, whatever the name of a folder in it holds."""
    print(printable(line))


def _tell(line: str) -> None:
    print(f"cxgrad_jax: {printable(line)}", file=sys.stderr)


def _tell_left_out(paths: Sequence[Path], where: str = " in the folder of a class") -> None:
    if paths:
        _tell(photos.left_out_line(paths, where))


def _end(unreadable: Sequence[UserError], number: int) -> None:
    """Ends a command with status 2, after its files are written, if photos are missing in them."""
    if unreadable:
        raise UserError(f"{len(unreadable)} of {number} photos could not be read and are left out")


def _backbone(name: str) -> str | photos.Backbone:
    """Returns a name or a file as it is, and for the folder of a run the backbone of its learner."""
    if not os.path.isdir(os.path.expanduser(name)):
        return name
    from cxgrad_jax.training.runs import load_run

    run = load_run(name)
    return photos.backbone_of_learner(run.learner, run.params, run.config.data.image_size, name=name)


def _check_place(path: Path, *others: Path | None) -> None:
    """Refuses a file that cannot be written, that is a photo, or that is one of ``others``, before the work for it."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; give the name of a file")
    target = os.path.realpath(path)
    photo = os.path.isfile(path) and (is_image(path.name) or is_image(os.path.basename(target)))
    if photo or any(other and target == os.path.realpath(other) for other in others):
        raise UserError(f"{path} would be overwritten; give another file for the result")
    if not os.path.isdir(path.absolute().parent):
        raise UserError(f"{path} cannot be written: there is no folder {path.absolute().parent}")
    if not is_stream(path):
        check_writable(path.absolute().parent)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, from the first photo that is done to the last one."""
    bar: Any = None  # a tqdm

    def show(done: int, number: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=number, unit=" photos", leave=False, disable=None)
        bar.update(done - bar.n)
        if done == number:  # lines may follow
            bar.close()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


if __name__ == "__main__":
    start(run)
