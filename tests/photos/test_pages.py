"""The pages in a headless Chromium: on a telephone's width, by mouse and by keyboard, for a screen reader, offline."""

import numpy as np
import pytest
from browser import Browser, find_browser
from pictures import folder_of_shapes

from cxgrad_jax.photos import NONE, Classifier, Prediction, photos_in
from cxgrad_jax.report.photos import Checked, check_page, predictions_page

NAMES = ("circle", "square", "triangle & <more>")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind: of 12 photos 2 squares are called circles and one triangle is called none of these."""
    root = folder_of_shapes(tmp_path_factory.mktemp("pages"), 4)
    predictions, truths = [], []
    for number, path in enumerate(photos_in(root)):
        truth = NAMES[number // 4]
        best = "circle" if number in (4, 5) else truth
        label = NONE if number == 9 else best
        second = next(name for name in NAMES if name != best)
        predictions.append(Prediction(str(path), label, 0.5 + number / 40, best, second, 0.2, 0.4))
        truths.append(truth)
    classifier = Classifier(None, NAMES, None, np.zeros((1, 3)), 0.3, None)  # pyright: ignore[reportArgumentType]
    check_page(root / "check.html", classifier, Checked(predictions, truths))
    predictions_page(root / "out.html", predictions, ["bad.jpg is not a readable image (it is empty)"])
    return root


def test_numbers_of_a_check():
    def of(best, probability):
        return Prediction("x", best, probability, best, "?", 0.0, 0.0)

    checked = Checked([of("a", 0.9), of("a", 0.8), of("b", 0.9), of("b", 0.3)], ["a", "b", "b", NONE])
    assert checked.known().accuracy() == pytest.approx(2 / 3)
    assert checked.known().recall() == {"a": (1, 1), "b": (1, 2)}
    assert checked.known().calibration() == [(0.8, 1.0, 3, pytest.approx(2.6 / 3), pytest.approx(2 / 3))]
    assert checked.known().calibration_error() == pytest.approx(0.2)


def test_names_are_text_and_nothing_is_fetched(pages):
    for page in ("check.html", "out.html"):
        text = (pages / page).read_text()
        assert "triangle &amp; &lt;more&gt;" in text and "<more>" not in text
        assert "http" not in text.replace("http-equiv", "") and "<script" not in text


@pytest.fixture(scope="module")
def page():
    executable = find_browser()
    if executable is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with Browser(executable) as browser:
        yield browser


def complaints(page):
    """What the browser logs, and what it fetches from elsewhere."""
    return [
        event for event in page.events
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
        or (event.get("method") == "Network.requestWillBeSent"
            and not event["params"]["request"]["url"].startswith(("file:", "data:", "about:")))
    ]  # fmt: skip


def test_the_check_is_clicked_through(page, pages):
    page.open(pages / "check.html")
    assert page.value("document.querySelector('h1').innerText") == "Check of a classifier of photos"
    assert "9 of 12" not in page.value("document.body.innerText")
    assert "10 of 12 photos had the right class as their best" in page.value("document.body.innerText")
    assert page.value("document.documentElement.scrollWidth <= window.innerWidth")  # only tables scroll sideways
    links = page.value("[...document.querySelectorAll('nav a, td a')].map(a => a.getAttribute('href'))")
    assert len(links) == 6  # four parts of the page, two cells of wrong photos
    for number, link in enumerate(links):
        page.value("window.scrollTo(0, 0)")
        page.click(f"{'nav' if number < 4 else 'td'} a[href='{link}']")
        assert page.value("location.hash") == link
        shown = page.value(f"document.querySelector('{link}').getBoundingClientRect().top")
        assert shown < page.value("window.innerHeight")
    heading = page.value(f"document.querySelector('{links[4]} h3').innerText")
    assert heading == "square, called circle"
    assert page.value(f"document.querySelectorAll('{links[4]} img').length") == 2
    assert page.value("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert not complaints(page)


def test_the_predictions_by_keyboard(page, pages):
    page.open(pages / "out.html")
    seen = []
    for _ in range(8):
        page.key("Tab", 9)
        seen.append(page.value("document.activeElement.innerText.trim()"))
    assert seen[0] == "Skip to the content" and "Photos" in seen and any(text.startswith("circle, 6") for text in seen)
    page.value("document.querySelector('summary').focus()")
    assert page.value("document.querySelector('details').open")
    page.key("Enter", 13, "\r")
    assert not page.value("document.querySelector('details').open")
    page.key("Enter", 13, "\r")
    assert page.value("document.querySelector('details').open")
    assert "bad.jpg is not a readable image" in page.value("document.querySelector('#unreadable').innerText")
    assert not complaints(page)


@pytest.mark.parametrize("name", ["check.html", "out.html"])
def test_a_screen_reader_finds_language_landmarks_and_names(name, page, pages):
    page.open(pages / name)
    assert page.value("document.documentElement.lang") == "en"
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    shown = [
        (n.get("role", {}).get("value"), n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")
    ]
    roles = [role for role, _ in shown]
    assert {"main", "navigation", "heading", "image", "link"} <= set(roles)
    assert all(text for role, text in shown if role in ("image", "link", "heading", "navigation"))
    if name == "check.html":
        assert "2 photos of square called circle" in [text for role, text in shown if role == "link"]
        assert "rowheader" in roles and "columnheader" in roles
    levels = page.value("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
