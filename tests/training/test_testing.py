"""Further questions to a finished run, and the run as an object of the library."""

import json
import shutil

import numpy as np
import pytest
from runs import results

import cxgrad_jax as cx
from cxgrad_jax.main import run
from cxgrad_jax.training.build import build_sampler, load_stores


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("episode.query=1", "results_query=1.json"),
        ("episode.shot=3", "results_shot=3.json"),
        ("learner.num_steps=3", "results_num_steps=3.json"),
        ("evaluation.seed=7", "results_seed=7.json"),
        ("evaluation.episodes=4", "results_episodes=4.json"),
        ("learner.query_statistics=support", "results_query_statistics=support.json"),
    ],
)
def test_an_evaluation_may_change_what_the_parameters_do_not_depend_on(copy, change, file, capsys):
    before = (copy / "results.json").read_bytes()
    assert run([f"--workdir={copy}", "--mode=evaluate", f"--config.{change}"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert change in line or "(4 tasks of" in line
    field, value = change.split("=")
    changed = json.loads((copy / file).read_text())["changed"]
    assert {name: str(each) for name, each in changed.items()} == {field: value}
    assert (copy / "results.json").read_bytes() == before


def test_a_change_that_needs_other_parameters_is_refused(copy, capsys):
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.episode.way=2"]) == 2
    assert "head" in capsys.readouterr().err and len(list(copy.glob("results*.json"))) == 1


def test_load_run_gives_the_checkpoint_best_in_validation(copy):
    found = cx.load_run(str(copy))
    store = load_stores(found.config, ("test",))["test"]
    result = cx.evaluate(found.learner, found.params, build_sampler(found.config, store), episodes=6)
    assert result.accuracy == pytest.approx(results(copy)["single_model_test_accuracy"])
    np.testing.assert_allclose(np.mean(result.accuracies), result.accuracy)


def test_a_runs_own_file_chooses_no_code(copy, tmp_path, monkeypatch, capsys):
    (tmp_path / "payload.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    saved = json.loads((copy / "config.json").read_text())
    saved["learner"]["name"] = "payload.f"
    (copy / "config.json").write_text(json.dumps(saved))
    assert run([f"--workdir={copy}", "--mode=evaluate"]) == 2
    assert "name it too: --config.learner.name=payload.f" in capsys.readouterr().err
    with pytest.raises(cx.UserError, match="payload.f"):
        cx.load_run(copy)


def test_a_run_of_another_format_says_which_version_reads_it(copy, capsys):
    saved = json.loads((copy / "config.json").read_text())
    for number, words in ((None, "is of version 0.1.0"), (3, "has format 3; this version reads 2")):
        content = {**saved, "format": number} if number else {k: v for k, v in saved.items() if k != "format"}
        (copy / "config.json").write_text(json.dumps(content))
        assert run([f"--workdir={copy}", "--mode=evaluate"]) == 2
        assert words in capsys.readouterr().err
