"""``cxgrad photos``: the four commands, their refusals, and what an interruption leaves."""

import csv
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from pictures import folder_of_shapes

import cxgrad_jax as cx
from cxgrad_jax import photos_cli
from cxgrad_jax.photos import _classifier


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, a meta-trained learner as backbone, and a classifier of it."""
    place = tmp_path_factory.mktemp("place")
    folder_of_shapes(place / "PHOTOS", 5)
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=3, features=8))
    params = learner.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    cx.save(place / "mine.safetensors", learner, params, image_size=32)
    assert fit(place, "shop.safetensors") == 0
    return place


def run(*words):
    return photos_cli.run([str(word) for word in words])


def fit(place, name):
    return run("fit", place / "PHOTOS", "--out", place / name, "--backbone", place / "mine.safetensors")


def test_fit_prints_what_to_expect(place, capsys):
    (place / "PHOTOS" / "circle" / "note.heic").write_text("")
    assert fit(place, "b.safetensors") == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "3 classes, 15 photos, mine.safetensors at 32 pixels, " in lines[0]
    assert re.fullmatch(r"expected accuracy [\d.]+ % \(95 % interval [\d.]+ to [\d.]+ %\)", lines[1])
    assert re.fullmatch(r"for comparison: chance 33.3 %, colour histogram [\d.]+ %", lines[2])
    assert re.search(r"^circle +5 +\d +\d+ %$", told.out, re.M) and "AUROC" in told.out
    assert "1 files are left out (note.heic)" in told.err
    (place / "PHOTOS" / "circle" / "note.heic").unlink()


def test_fit_of_unequal_classes_prints_the_largest(place, tmp_path, capsys):
    shutil.copytree(place / "PHOTOS", tmp_path / "PHOTOS")
    shutil.copy(tmp_path / "PHOTOS" / "circle" / "0.jpg", tmp_path / "PHOTOS" / "square" / "9.jpg")
    out = tmp_path / "a.safetensors"
    assert run("fit", tmp_path / "PHOTOS", "--out", out, "--backbone", place / "mine.safetensors") == 0
    told = capsys.readouterr()
    assert re.search(r"^for comparison: chance 33.3 %, always the largest class [34]\d\.\d %, colour", told.out, re.M)
    assert re.search(r"circle/0.jpg and .*/square/9.jpg are the same photo in two classes \(the only such", told.err)


def test_what_is_left_out_is_told(place, tmp_path, capsys):
    shutil.copytree(place / "PHOTOS", tmp_path / "new")
    for name in ("a.heic", ".hidden"):
        (tmp_path / "new" / "circle" / name).write_text("")
    line = "cxgrad_jax: 1 files are left out (a.heic); photos are .bmp, .gif, .jpeg, .jpg, .png, .webp"
    assert run("predict", place / "shop.safetensors", tmp_path / "new") == 0
    assert capsys.readouterr().err == f"{line}\n"
    assert run("check", place / "shop.safetensors", tmp_path / "new", "--html", tmp_path / "page.html") == 0
    assert capsys.readouterr().err == f"{line} in the folder of a class\n"


def test_folders_in_a_class_are_told_with_their_photos(place, tmp_path, capsys):
    shutil.copytree(place / "PHOTOS", tmp_path / "new")
    shutil.copytree(place / "PHOTOS" / "square", tmp_path / "new" / "square" / "2024")
    assert run("check", place / "shop.safetensors", tmp_path / "new", "--html", tmp_path / "page.html") == 0
    line = "the folder square/2024 with 5 photos is left out; photos must be right in the folder of a class"
    assert capsys.readouterr().err == f"cxgrad_jax: {line}\n"
    shutil.copytree(place / "PHOTOS" / "square", tmp_path / "new" / "circle" / "2025")
    (tmp_path / "new" / "a.txt").write_text("")
    told = cx.photos.left_out_line(cx.photos.labelled_photos(tmp_path / "new").left_out)
    assert told.startswith("1 files are left out (a.txt); photos are .bmp")
    assert "2 folders (circle/2025, square/2024) with 10 photos are left out; photos must" in told


def test_the_name_of_a_class_stays_in_its_line(place, tmp_path, capsys):
    shutil.copytree(place / "PHOTOS", tmp_path / "new")
    (tmp_path / "new" / "square").rename(tmp_path / "new" / "squ\n\x1b[2Jare")
    out = tmp_path / "a.safetensors"
    assert run("fit", tmp_path / "new", "--out", out, "--backbone", place / "mine.safetensors") == 0
    assert re.search(r"^squ\\n\\x1b\[2Jare +5 ", capsys.readouterr().out, re.M)


def test_the_headline_names_the_classes_that_were_judged(place):
    clf = cx.photos.load(place / "shop.safetensors")
    per_class = {**clf.estimate.per_class, "circle": None, "square": None}
    lines = photos_cli.summary(clf._replace(estimate=clf.estimate._replace(per_class=per_class)), place / "a")
    assert lines[1].startswith("expected accuracy, of triangle alone, ")


def test_check_tells_of_photos_that_fit_has_seen(place, tmp_path, capsys):
    folder_of_shapes(tmp_path / "test", 2, seed=7)
    shutil.copy(place / "PHOTOS" / "circle" / "0.jpg", tmp_path / "test" / "circle" / "old.jpg")
    assert run("check", place / "shop.safetensors", tmp_path / "test", "--html", tmp_path / "page.html") == 0
    line = "1 of 7 photos are among those that the classifier was made from; the accuracy of new ones may be lower"
    assert line in capsys.readouterr().out.splitlines()


def test_no_input_is_overwritten(place, tmp_path, capsys):
    for name in ("shop", "mine"):
        shutil.copy(place / f"{name}.safetensors", tmp_path)
    shutil.copytree(place / "PHOTOS", tmp_path / "PHOTOS")
    photo, shop, mine = tmp_path / "PHOTOS/circle/0.jpg", tmp_path / "shop.safetensors", tmp_path / "mine.safetensors"
    (tmp_path / "link").symlink_to(photo)
    odd = tmp_path / "odd"
    shutil.copy(photo, odd)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (
        ("fit", tmp_path / "PHOTOS", "--backbone", mine, "--out", mine),
        ("fit", tmp_path / "PHOTOS", "--backbone", mine, "--out", photo),
        ("predict", shop, tmp_path / "PHOTOS", "--csv", photo),
        ("predict", shop, tmp_path / "PHOTOS", "--html", tmp_path / "link"),
        ("predict", shop, odd, "--csv", odd),
        ("check", shop, tmp_path / "PHOTOS", "--html", photo),
        ("check", shop, tmp_path / "PHOTOS", "--html", shop),
    ):
        assert run(*words) == 2
        assert (
            capsys.readouterr().err
            == f"cxgrad_jax: {words[-1]} would be overwritten; give another file for the result\n"
        )
    shop.rename(tmp_path / "x.json")
    assert run("export", tmp_path / "x.json", tmp_path / "x", "--format", "stablehlo") == 2
    (tmp_path / "x.json").rename(shop)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_disk_without_room_is_refused_before_the_work(place, capsys, monkeypatch):
    asked = []

    def full(folder, size=0):
        asked.append((folder, size))
        if size:
            raise cx.UserError(f"{folder} cannot be written: No space left on device")

    monkeypatch.setattr(photos_cli, "check_writable", full)
    monkeypatch.setattr(_classifier, "all_features", None)  # the work
    assert fit(place, "d.safetensors") == 2
    assert capsys.readouterr().err == f"cxgrad_jax: {place} cannot be written: No space left on device\n"
    assert 0 < asked[-1][1] <= (place / "mine.safetensors").stat().st_size


def test_a_table_on_standard_output_is_added_to_a_log(place, tmp_path):
    photo = place / "PHOTOS" / "circle" / "0.jpg"
    words = [sys.executable, "-m", "cxgrad_jax.photos_cli", "predict", place / "shop.safetensors", photo]
    (tmp_path / "log.txt").write_text("before\n")
    with (tmp_path / "log.txt").open("a") as log:
        subprocess.run([*words, "--csv", "/dev/stdout"], stdout=log, check=True)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0] == "before" and lines[1].startswith("file,label") and lines[2].startswith(str(photo))
    assert len(lines) == 3  # the table alone


def test_a_classifier_that_is_no_better_is_told_to_be(place):
    clf = cx.photos.load(place / "shop.safetensors")
    poor = clf._replace(estimate=clf.estimate._replace(accuracy=0.3, histogram=0.5))
    lines = photos_cli.summary(poor, place / "shop.safetensors")
    assert any("NOT better" in line for line in lines)


def test_predict_writes_the_table_and_the_page(place, capsys):
    shop, table, page = place / "shop.safetensors", place / "out.csv", place / "out.html"
    assert run("predict", shop, place / "PHOTOS", "--csv", table, "--html", page) == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == "file,label,probability,best,runner_up,runner_up_probability,familiarity"
    assert len(rows) == 15 and all(0 <= float(row["probability"]) <= 1 for row in rows)
    assert page.read_text().count("<img ") == 15
    capsys.readouterr()
    assert run("predict", shop, rows[4]["file"]) == 0  # one photo, on the screen
    (alone,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert alone == rows[4]


def test_an_unreadable_photo_is_told_and_the_others_are_predicted(place, tmp_path, capsys):
    folder_of_shapes(tmp_path / "new", 1)
    (tmp_path / "new" / "bad.png").write_bytes(b"\x89PNG")
    assert run("predict", place / "shop.safetensors", tmp_path / "new", "--csv", tmp_path / "out.csv") == 2
    told = capsys.readouterr()
    assert "bad.png is not a readable image" in told.err and "1 of 4 photos could not be read" in told.err
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4


def test_photos_that_cannot_be_read_at_all_make_an_empty_table(place, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("hello")
    assert run("predict", place / "shop.safetensors", tmp_path / "text.jpg", "--csv", tmp_path / "o.csv") == 2
    assert "1 of 1 photos could not be read and are left out" in capsys.readouterr().err
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1


def test_a_name_that_is_not_utf8_costs_no_result(place, tmp_path):
    photo = next((place / "PHOTOS").glob("*/*"))
    odd = os.fsencode(tmp_path) + b"/\xff" + os.fsencode(photo.suffix)
    shutil.copy(photo, odd)
    assert run("predict", place / "shop.safetensors", os.fsdecode(odd), "--csv", tmp_path / "o.csv") == 0
    assert "\\udcff" in (tmp_path / "o.csv").read_text()


def test_check_compares_with_the_truth(place, tmp_path, capsys):
    folder_of_shapes(tmp_path / "test", 4, seed=7)
    folder_of_shapes(tmp_path / "strange", 3, kinds=("stripes",))
    (tmp_path / "strange" / "stripes").rename(tmp_path / "test" / cx.photos.NONE)
    page = tmp_path / "check.html"
    assert run("check", place / "shop.safetensors", tmp_path / "test", "--html", page) == 0
    told = capsys.readouterr().out
    assert "was made from" not in told
    assert re.search(r"^accuracy [\d.]+ % of 12 photos; calibration error 0\.\d+$", told, re.M)
    assert re.search(r"^\d of 3 photos of no class were called 'none of these'$", told, re.M)
    assert re.search(r"^triangle +4 +\d+ %", told, re.M)
    assert page.read_text().startswith("<!DOCTYPE html>")
    (tmp_path / "test" / "square").rename(tmp_path / "test" / "sqare")
    assert run("check", place / "shop.safetensors", tmp_path / "test") == 2
    assert "sqare is not a class of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "give a command: one of fit, check, predict, export"),
        (["fit", "PHOTOS"], "the following arguments are required: --out"),
        (["fit", "nowhere", "--out", "x.safetensors"], "nowhere is not there; expected PHOTOS/CLASS/*.jpg"),
        (["fit", "PHOTOS", "--out", "no/x.safetensors"], "cannot be written: there is no folder"),
        (["fit", "PHOTOS", "--out", "x", "--head", "tree"], "--head: invalid choice: 'tree'"),
        (["predict", "none.safetensors", "PHOTOS"], "none.safetensors does not exist"),
        (["predict", "shop.safetensors", "gone.jpg"], "gone.jpg is not there"),
        (["predict", "shop.safetensors", "PHOTOS", "--csv", "PHOTOS"], "PHOTOS is a folder"),
        (["check", "mine.safetensors", "PHOTOS"], "which cx.load reads and photos fit takes as backbone (--backbone);"),
        (["export", "shop.safetensors", "shop.onnx"], "ONNX is written for EfficientNetLite alone, not Conv4"),
        (["export", "shop.safetensors", "x", "--format", "tflite"], "invalid choice: 'tflite'"),
        (
            ["export", "shop.safetensors", "shop.safetensors", "--format", "stablehlo"],
            "would be overwritten; give another",
        ),
        (
            ["predict", "shop.safetensors", "PHOTOS", "--csv", "a", "--html", "a"],
            "a would be overwritten; give another",
        ),
        (["predict", "shop.safetensors", ""], "the path is empty; expected a path"),
        (["predict", "shop.safetensors", "x" * 300], "is not there; expected a photo or a folder of photos"),
        (["fit", "PHOTOS", "--out", "x.safetensors", "--seed", "-1"], "seed is -1; expected a whole number, 0 to"),
    ],
)
def test_refusals_are_one_line(words, line, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1, told
    assert sorted(path.name for path in place.iterdir()) == before


def test_an_interruption_leaves_nothing(place, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_classifier, "fit_and_estimate", interrupted)
    before = sorted(path.name for path in place.iterdir())
    assert fit(place, "c.safetensors") == 130
    assert sorted(path.name for path in place.iterdir()) == before


def test_stablehlo_by_the_command(place, capsys):
    assert run("export", place / "shop.safetensors", place / "shop.bin", "--format", "stablehlo") == 0
    assert (place / "shop.bin").stat().st_size > 10_000 and (place / "shop.bin.json").is_file()
