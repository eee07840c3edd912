"""Pictures: files, axes, colours."""

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from small import make_episode

from cxgrad_jax import parallel
from cxgrad_jax.analysis._conditioning import Conditioning
from cxgrad_jax.analysis._landscape import RATES, Landscape
from cxgrad_jax.errors import UserError
from cxgrad_jax.report.figures import (
    FIGURES,
    accuracy,
    calibration,
    conditioning,
    embeddings,
    gradient_norms,
    landscape,
    questions,
    similarity,
)
from cxgrad_jax.report.figures import style as figure_style
from cxgrad_jax.report.figures.conditioning import draw, factor_table, with_other_factors
from cxgrad_jax.report.figures.style import binned, legend, panels, plain_numbers, point_style, save, style
from cxgrad_jax.report.study import Study
from cxgrad_jax.training.build import build_learner
from cxgrad_jax.training.config import ConfigDict, base_config


def test_every_listed_figure_can_be_asked():
    assert len(set(FIGURES)) == len(FIGURES) and all(callable(figure.sections) for figure in FIGURES)


def test_a_picture_is_written_in_three_forms_and_the_same_again(tmp_path):
    def written(folder):
        folder.mkdir()
        figure, axes = panels(1, 2, 4, 2)
        axes[0, 0].plot([1, 2], [3, 4], **style(8))
        assert isinstance(figure, Figure) and save(figure, folder, "it") == folder / "it.png"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = written(tmp_path / "a")
    assert {name.split(".")[1]: content[:4] for name, content in first.items()} == {
        "png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xm",
    }  # fmt: skip
    assert written(tmp_path / "b") == first


@pytest.mark.parametrize("values", [(0.68, 0.79), (0.5, 2.0), (0.3, 9.0), (0.002, 40.0)])
def test_an_axis_of_positive_values_has_plain_numbers(values):
    figure, axes = panels(1, 1, 4, 3)
    axes[0, 0].plot([0, 1], values)
    plain_numbers(axes[0, 0])
    figure.canvas.draw()
    low, high = axes[0, 0].get_ylim()
    texts = [text.get_text() for text in axes[0, 0].get_yticklabels() if low <= text.get_position()[1] <= high]
    assert len(texts) >= 3 and not any("10^" in text or "times" in text for text in texts)


def test_many_items_look_different():
    for look in (lambda i: tuple(point_style(i).values()), lambda i: (style(i)["linestyle"], style(i)["marker"])):
        assert len({look(i) for i in range(49)}) == 49
    assert [style(i)["marker"] for i in range(7)] == list("osD^vPX")


# Letters that matplotlib gives a meaning of its own, and a byte that is not text (as in the name of a folder).
ODD = ("_hidden", "lr$b_c_d$", "odd\udcff")


def by_odd_run(value: Any) -> dict[str, Any]:
    return {name: value for name in ODD}


ONES: Any = np.ones(3)
ROWS: Any = np.ones((3, 2))
ANSWERS = {"none adapted": {"test_accuracy": 0.5, "test_ci95_tasks": 0.1}}
PLANES = (np.eye(3, 2), np.eye(3, 2))
PICTURES: dict[str, Callable[[], Figure]] = {
    "accuracy": lambda: accuracy.draw(by_odd_run(accuracy.Recorded((ONES, ONES), (ONES, ONES, ONES)))),
    "calibration": lambda: calibration.draw(by_odd_run(dict.fromkeys(calibration.KEYS, ONES))),
    "gradient_norms": lambda: gradient_norms.draw(by_odd_run((ONES, by_odd_run(ONES)))),
    "similarity": lambda: similarity.draw(ODD, by_odd_run(by_odd_run((0.5, 0.1)))),
    "embeddings": lambda: embeddings.draw(by_odd_run(embeddings.Planes(ODD, np.arange(3), by_odd_run(PLANES)))),
    "landscape": lambda: landscape.draw(by_odd_run(range(3)), by_odd_run(Landscape(ROWS, ROWS, ONES))),
    "conditioning": lambda: draw(by_odd_run(np.ones((4, 2, 3))), by_odd_run(np.ones((4, 2))), by_odd_run(ODD)),
    "questions": lambda: questions.draw({"inner_steps": by_odd_run(ANSWERS), "parts": by_odd_run(ANSWERS)}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of an older matplotlib with a newer pyparsing
@pytest.mark.parametrize("name", PICTURES)
def test_names_are_drawn_as_they_are(name):
    """``savefig`` refuses a wrong formula or a letter that is none, but a hidden name is noticed by nobody."""
    drawn = PICTURES[name]()
    drawn.savefig(io.BytesIO(), format="svg")
    legends = [*drawn.legends, *(axis.get_legend() for axis in drawn.axes if axis.get_legend())]
    wanted = ["_hidden", r"lr\$b_c_d\$", r"odd\udcff"]
    for found in legends:
        shown = [text.get_text() for text in found.get_texts()]
        assert shown == ([" hidden", r"lr\$b c d\$", r"odd\udcff"] if name == "embeddings" else wanted)
    assert legends


def drawn_with(name, folder, kind):
    drawn, axes = panels(1, 1, 4, 3)
    legend(axes[0, 0], [(name, style(0))])
    save(drawn, folder, name)
    return (folder / f"{name}.{kind}").read_bytes()


def test_letters_that_no_font_has_are_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figure_style, "FALLBACKS", ("no such font",))
    figure_style._tell_boxes.cache_clear()
    assert drawn_with("数据", tmp_path, "png") and drawn_with("数", tmp_path, "png")
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "some letters of names are boxes in the pictures" in told


def test_letters_of_another_font_are_drawn(tmp_path, monkeypatch, capsys):
    figure_style._tell_boxes.cache_clear()
    letter = "ᶁ"  # DejaVu Sans lacks it, and another font that comes with matplotlib has it
    monkeypatch.setattr(figure_style, "FALLBACKS", ("no such font", "STIXGeneral"))
    assert b"STIXGeneral" in drawn_with(letter, tmp_path, "pdf")
    assert b"STIXGeneral" not in drawn_with("run", tmp_path, "pdf")
    assert capsys.readouterr().err == ""


def test_binned_drops_what_is_left():
    np.testing.assert_array_equal(binned(np.arange(7.0), 3), [1.0, 4.0])


def test_further_questions_are_shown_where_they_were_asked(tmp_path):
    def asked(run, file, changed=None, checkpoint=6, **accuracies):
        answers = {
            name.replace("_", " "): {"test_accuracy": value, "test_ci95_tasks": 0.01}
            for name, value in accuracies.items()
        }
        (tmp_path / run).mkdir(exist_ok=True)
        path = tmp_path / run / f"results_question={file}.json"
        content = {
            "answers": answers,
            "num_tasks": 2,
            "checkpoint": checkpoint,
            **({"changed": changed} if changed else {}),
        }
        path.write_text(json.dumps(content))

    runs: Any = [SimpleNamespace(name=name, workdir=tmp_path / name, best=6) for name in ("maml", "cxgrad", "boil")]
    study = Study(runs, ConfigDict(), {}, parallel.task_mesh(1), tmp_path)
    assert questions.sections(study) == []

    asked("maml", "inner_steps", after_0=0.2, after_1=0.3)
    steps = {"learner.num_steps": 2}
    asked("maml", "inner_steps_num_steps=2", changed=steps, after_0=0.2, after_1=0.3, after_2=0.35)
    elsewhere = {"evaluation.data": "cub", **steps}
    asked("maml", "inner_steps_cub_num_steps=2", changed=elsewhere, after_0=0.5, after_1=0.5, after_2=0.5, after_3=0.5)
    asked("boil", "parts_cub", changed={"evaluation.data": "cub"}, none_adapted=0.5, head_adapted=0.5)
    asked("maml", "parts", none_adapted=0.2, head_adapted=0.31)
    asked("boil", "parts_num_steps=2", changed=steps, none_adapted=0.6, head_adapted=0.6)
    asked("boil", "inner_steps", checkpoint=4, after_0=0.2, after_1=0.3)
    asked("cxgrad", "parts", none_adapted=0.2, head_adapted=0.4)
    (tmp_path / "cxgrad" / "results_question=permutations.json").write_text('{"answers": {"mean": {}}}')
    (section,) = questions.sections(study)
    assert section.picture == tmp_path / "questions.png"
    assert section.table[1:] == [
        ("maml", "after 0", "20.00 ± 1.00"), ("maml", "after 1", "30.00 ± 1.00"), ("maml", "after 2", "35.00 ± 1.00"),
        ("maml", "none adapted", "20.00 ± 1.00"), ("maml", "head adapted", "31.00 ± 1.00"),
        ("cxgrad", "none adapted", "20.00 ± 1.00"), ("cxgrad", "head adapted", "40.00 ± 1.00"),
    ]  # fmt: skip
    assert section.caption[1:] == [
        "cxgrad was not asked --question=inner_steps since this checkpoint.",
        "boil was not asked --question=inner_steps since this checkpoint.",
        "boil was not asked --question=parts since this checkpoint.",
    ]  # fmt: skip
    assert (tmp_path / "questions.csv").read_text().count("\n") == 8


def test_a_run_looks_the_same_in_all_panels_of_questions():
    """Each of these runs was asked one question, so that no panel shows both."""
    drawn = questions.draw({"inner_steps": {"maml": ANSWERS}, "parts": {"boil": ANSWERS}})
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["maml", "boil"]
    (maml, boil), axes = legend.get_lines(), drawn.axes
    assert axes[0].lines[0].get_color() == maml.get_color() != boil.get_color()
    shown = axes[1].lines[-1]
    assert (shown.get_color(), shown.get_marker()) == (boil.get_color(), boil.get_marker())


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Three runs of nothing but names, whose folders are empty, on two data sets of three classes."""
    sampler: Any = lambda index: SimpleNamespace(query_labels=np.arange(3).repeat(2))  # noqa: E731
    sampler.class_names, sampler.batch = lambda index: ["a", "b", "c"], None
    for module in (conditioning, embeddings):
        monkeypatch.setattr(module, "sampler_of", lambda study, store: sampler)
    configs: Any = base_config()
    configs.learner.name = "maml"
    one = {"config": configs, "best": 1, "iterations": [0, 1], "remark": "", "restore": lambda iteration: None}
    runs: Any = [SimpleNamespace(name=name, workdir=tmp_path / name, **one) for name in ("good", "bad", "worse")]
    options = ConfigDict({
        "episodes": 2, "embedding_episode": 0, "perplexity": 3.0, "landscape_episodes": 1, "landscape_split": "test",
    })  # fmt: skip
    stores: Any = {(name, "test"): SimpleNamespace(name=name) for name in ("first", "second")}
    return Study(runs, options, stores, parallel.task_mesh(1), tmp_path)


def test_a_run_whose_features_have_no_plane_does_not_end_the_report(study, monkeypatch):
    good = np.random.default_rng(0).normal(size=(2, 6, 3))
    features = {"good": [good, good], "bad": [good, good[..., :1]], "worse": [np.full_like(good, np.nan)] * 2}
    monkeypatch.setattr(embeddings, "on_one_episode", lambda run, *_: features[run.name].pop(0))
    (section,) = embeddings.sections(study)
    assert section.caption[1:] == [
        "worse is not shown on first: before and after have dtype float64 or hold NaN or Inf; expected finite numbers.",
        "bad is not shown on second: before and after have shapes [6, 1] and [6, 1]; expected [N, D] twice, D at least "
        "2.",
        "worse is not shown on second: before and after have dtype float64 or hold NaN or Inf; expected finite "
        "numbers.",
    ]
    assert section.picture == study.folder / "embeddings.png"
    assert (study.folder / "embeddings.csv").read_text().count("\n") == 1 + (2 + 1) * 2 * 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of an older matplotlib with a newer pyparsing
def test_a_run_without_conditioning_does_not_end_the_report(study, monkeypatch):
    ones: Any = np.ones((2, 3, 1))
    one = Conditioning(gamma=ones, context_norm=ones[..., 0], gamma_at_zero=ones[:, 0])

    def measured(study, run, *_, **__):
        if run.name != "good":
            raise UserError(f"{run.name} has NaN")
        return lambda params: (one, dict.fromkeys(("own", "zero", "other"), np.full(2, 0.5)))

    for run in study.runs:
        run.config = ConfigDict({"learner": {"name": "cxgrad", "inner_lr": 0.01}})
        run.restore = lambda iteration: {"model": {"block_0": {"conv": {"kernel": np.ones((3, 3, 1, 2))}}}}
    monkeypatch.setattr(conditioning, "over_episodes_of", measured)
    monkeypatch.setattr(conditioning, "with_other_factors", lambda run: None)
    factors, worth = conditioning.sections(study)
    assert factors.caption[-2:] == ["bad is not shown: bad has NaN.", "worse is not shown: worse has NaN."]
    assert [line[0] for line in worth.table] == ["run", "good"]
    study.runs.pop(0)
    (section,) = conditioning.sections(study)
    assert section.picture is None and len(section.caption) == 2
    assert not (study.folder / "conditioning.png").exists()


def test_the_legend_of_many_classes_is_whole():
    names = [f"Japanese_(katakana)/character{i:02d}" for i in range(20)]
    points = np.random.default_rng(0).normal(size=(2, 20, 2))
    drawn = embeddings.draw({"omniglot": embeddings.Planes(names, np.arange(20), {"run": (points[0], points[1])})})
    drawn.savefig(io.BytesIO(), format="png")  # this lays it out
    legend: Any = drawn.axes[-1].get_legend()
    box, page = legend.get_window_extent(), drawn.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
    panel = drawn.axes[0].get_window_extent()
    assert 0.7 < panel.width / panel.height < 1.4


def test_similarity_that_is_no_number_is_explained(study, monkeypatch):
    values = {"good": np.array([0.5, 0.6]), "bad": np.array([0.5, np.nan])}

    def over_episodes_of(study, run, *more, **keywords):
        if run.name not in values:
            raise UserError("a reason")
        return lambda params: {"head": values[run.name]}

    monkeypatch.setattr(similarity, "over_episodes_of", over_episodes_of)
    monkeypatch.setattr(similarity, "layer_order", lambda study, run: ["head"])
    (section,) = similarity.sections(study)
    assert section.table[2] == ("bad", "nan ± nan")
    assert section.caption[1:] == [
        "nan: in an episode, the features of the layer are the same for all images, or not finite.",
        "worse is not shown: a reason.",
    ]
    values["bad"] = values["good"]
    assert similarity.sections(study)[0].caption[1:] == ["worse is not shown: a reason."]


def test_a_run_without_a_landscape_does_not_end_the_report(study, monkeypatch):
    rates: Any = np.ones((1, 2, len(RATES)))

    def over_episodes_of(study, run, *more, **keywords):
        if run.name == "bad":
            raise UserError("a reason")
        return lambda params: Landscape(rates, rates, rates[..., 0])

    monkeypatch.setattr(landscape, "over_episodes_of", over_episodes_of)
    (section,) = landscape.sections(study)
    assert section.caption[1:] == ["bad is not shown: a reason."]
    assert [line[0] for line in section.table[1:]] == ["good", "worse"]


def test_pictures_of_an_earlier_report_are_removed_if_there_is_no_new_one(study, monkeypatch):
    """The folder may hold other files, which stay."""
    names = ("questions", "calibration", "gradient_norms", "cka", "landscape", "embeddings", "conditioning")
    names += ("accuracy", "conditioning_accuracy", "conditioning_factors", "conditioning_context")
    for name in (*names, "mine"):
        for kind in ("png", "svg", "pdf", "csv"):
            (study.folder / f"{name}.{kind}").touch()

    def refuse(*given, **keywords):
        raise UserError("a reason")

    for module in (similarity, landscape):
        monkeypatch.setattr(module, "over_episodes_of", refuse)
    monkeypatch.setattr(embeddings, "on_one_episode", refuse)
    for figure in FIGURES:
        figure.sections(study)
    left = {path.name for path in study.folder.iterdir()}
    assert left == {"accuracy.csv", *(f"mine.{kind}" for kind in ("png", "svg", "pdf", "csv"))}
    (study.folder / "calibration.pdf").mkdir()
    with pytest.raises(UserError, match=r"calibration\.pdf cannot be removed: "):
        calibration.sections(study)


@pytest.mark.parametrize("statistics", ["query", "support"])
def test_own_factors_are_judged_as_the_learner_is(statistics):
    episode = make_episode(query=6)
    config = base_config()
    config.model.features, config.episode.way, config.learner.num_steps = 4, 3, 2
    config.learner.query_statistics, config.learner.inner_lr = statistics, 0.2
    learner = build_learner(config)
    params = learner.init(jax.random.key(0), episode.support_images)
    logits = []
    run: Any = SimpleNamespace(config=config)
    measure = with_other_factors(run)
    watched = learner._replace(predict=lambda *given: logits.append(learner.predict(*given)) or logits[-1])
    measure(watched, params, (episode, make_episode(1)))
    adapted = learner.adapt(params, episode.support_images, episode.support_labels)
    np.testing.assert_allclose(logits[0], learner.predict(params, adapted, episode.query_images), rtol=1e-4, atol=1e-4)


def test_runs_of_different_networks_stand_in_one_picture_of_factors():
    layers = {"one": ["a", "b"], "other": ["b", "c", "d"]}
    tasks = np.array([1.0, 3.0, 1.0, 3.0])[:, None, None]  # the mean of the squares is 5
    gamma = {name: np.broadcast_to(tasks, (4, 2, len(kernels))) for name, kernels in layers.items()}
    table = factor_table(gamma, {"one": 0.01, "other": 0.1}, layers)
    assert [(line[0], line[1], line[-1]) for line in table[1:]] == [
        ("one", "a", "0.002"), ("one", "b", "0.002"), *(("other", layer, "0.02") for layer in "bcd")
    ]  # fmt: skip
    drawn = draw(gamma, {"one": np.ones((4, 2)), "other": np.ones((4, 3))}, layers)
    factors, _, context = drawn.axes
    assert [text.get_text() for text in factors.get_xticklabels()] == ["a", "b", "c", "d"]
    places = {tuple(np.asarray(line.get_xdata()).tolist()) for line in factors.lines}
    assert places == {(0, 1), (1, 2, 3)} and list(context.get_xticks()) == [1, 2, 3]


def test_factors_that_are_the_same_for_all_tasks_have_a_linear_axis():
    """A logarithmic one has no place for zeros, and matplotlib warns."""
    drawn = draw({"one": np.ones((4, 2, 1))}, {"one": np.zeros((4, 2))}, {"one": ["a"]})
    assert [axis.get_yscale() for axis in drawn.axes] == ["linear"] * 3
