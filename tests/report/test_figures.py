"""Pictures: files, axes, colours."""

import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from small import make_episode

from cxgrad_jax import parallel
from cxgrad_jax.report.figures import FIGURES, questions
from cxgrad_jax.report.figures.conditioning import factor_table, picture, with_other_factors
from cxgrad_jax.report.figures.style import binned, panels, plain_numbers, save, style
from cxgrad_jax.report.study import Study
from cxgrad_jax.training.build import build_learner
from cxgrad_jax.training.config import ConfigDict, base_config


def test_every_listed_figure_can_be_asked():
    assert len(set(FIGURES)) == len(FIGURES) and all(callable(figure.sections) for figure in FIGURES)


def test_a_picture_is_written_in_three_forms_and_the_same_again(tmp_path):
    def draw(folder):
        folder.mkdir()
        picture, axes = panels(1, 2, 4, 2)
        axes[0, 0].plot([1, 2], [3, 4], **style(8))
        assert isinstance(picture, Figure) and save(picture, folder, "it") == folder / "it.png"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = draw(tmp_path / "a")
    assert {name.split(".")[1]: content[:4] for name, content in first.items()} == {
        "png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xm",
    }  # fmt: skip
    assert draw(tmp_path / "b") == first


@pytest.mark.parametrize("values", [(0.68, 0.79), (0.5, 2.0), (0.3, 9.0), (0.002, 40.0)])
def test_an_axis_of_positive_values_has_plain_numbers(values):
    picture, axes = panels(1, 1, 4, 3)
    axes[0, 0].plot([0, 1], values)
    plain_numbers(axes[0, 0])
    picture.canvas.draw()
    low, high = axes[0, 0].get_ylim()
    texts = [text.get_text() for text in axes[0, 0].get_yticklabels() if low <= text.get_position()[1] <= high]
    assert len(texts) >= 3 and not any("10^" in text or "times" in text for text in texts)


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
    gamma = {name: np.broadcast_to(tasks, (4, 2, len(of_run))) for name, of_run in layers.items()}
    table = factor_table(gamma, {"one": 0.01, "other": 0.1}, layers)
    assert [(line[0], line[1], line[-1]) for line in table[1:]] == [
        ("one", "a", "0.002"), ("one", "b", "0.002"), *(("other", layer, "0.02") for layer in "bcd")
    ]  # fmt: skip
    drawn = picture(gamma, {"one": np.ones((4, 2)), "other": np.ones((4, 3))}, layers)
    factors, _, context = drawn.axes
    assert [text.get_text() for text in factors.get_xticklabels()] == ["a", "b", "c", "d"]
    places = {tuple(np.asarray(line.get_xdata()).tolist()) for line in factors.lines}
    assert places == {(0, 1), (1, 2, 3)} and list(context.get_xticks()) == [1, 2, 3]
