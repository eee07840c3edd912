"""A finished run tested again, further questions to it, and the run as an object of the library."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from runs import environment, flags, results, told
from runs import run as run_alone

import cxgrad_jax as cx
from cxgrad_jax.errors import UserError
from cxgrad_jax.main import parse, run
from cxgrad_jax.training.build import build_sampler, load_stores
from cxgrad_jax.training.config import glyphs_config, learner_config
from cxgrad_jax.training.evaluate import check_values, results_name
from cxgrad_jax.training.testing import announce


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "file"),
    [
        ("episode.query=1", "results_query=1.json"),
        ("episode.shot=3", "results_shot=3.json"),
        ("model.precision=high", "results_precision=high.json"),
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
    for change, words in {
        "episode.way=2": "episode.way is 2, but the parameters were trained with 3; train another run for that",
        "learner.context_dim=7": "learner.context_dim is 7, but the parameters were trained with 4; train",
        "evaluation.data=omniglot": "evaluation.data is omniglot, whose images have 1 channel(s), other than those of",
    }.items():
        flags = [f"--workdir={copy}", "--mode=evaluate", "--config.episode.shot=2", f"--config.{change}"]
        assert run(flags) == 2
        (line,) = told(capsys.readouterr().err)
        assert words in line and "shot" not in line
    assert len(list(copy.glob("results*.json"))) == 1


def test_a_test_does_not_extend_the_run(copy):
    before = results(copy)["config"]
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.train.iterations=9999"]) == 0
    for section, values in results(copy)["config"].items():
        assert values == before[section]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("--config.evaluation.val_episodes=3", "evaluation.val_episodes is 3, not 6 as in"),
        ("--config.learner.first_order=false", "learner.first_order is False, not True as in"),
        ("--config.learner.remat", "learner.remat is True, not False as in"),
        ("--question=parts --config.evaluation.ensemble=1", "evaluation.ensemble is 1, not 2 as in"),
    ],
)
def test_a_change_without_effect_is_refused(change, words, copy, capsys):
    before = sorted(copy.iterdir())
    assert run([f"--workdir={copy}", "--mode=evaluate", *change.split()]) == 2
    (line,) = told(capsys.readouterr().err)
    assert words in line and "it has no effect on" in line
    assert sorted(copy.iterdir()) == before


def test_an_unfinished_run_is_told(capsys):
    numbers = {"test_accuracy": 0.5, "test_ci95_tasks": 0.01, "num_tasks": 600, "test_data": "cub", "ensemble_size": 5}
    for done, told_of in ((245, ", after 245 of 3,000 iterations)"), (3000, "ensemble of 5)")):
        announce({**numbers, "iterations": done, "config": {"train": {"iterations": 3000}}})
        assert capsys.readouterr().out.endswith(f"{told_of}\n")


@pytest.mark.parametrize("data", ["../x", "/etc/x"])
def test_data_of_no_name_make_no_folder(data, copy, capsys):
    before = sorted(copy.iterdir())
    assert run([f"--workdir={copy}", "--mode=evaluate", f"--config.evaluation.data={data}"]) == 2
    assert "unknown data set" in capsys.readouterr().err and sorted(copy.iterdir()) == before


def test_the_file_of_a_changed_test_names_every_change():
    config = glyphs_config()
    changed = {"episode.shot": 5, "evaluation.episodes": 20}
    assert results_name(config, changed) == "results_shot=5_episodes=20.json"
    assert results_name(config, {"evaluation.data": "cub"}, "parts") == "results_question=parts_cub.json"
    assert results_name(config, {}) == "results.json"


def test_the_file_of_a_changed_test_is_in_the_folder_and_has_a_name_that_file_systems_take():
    config = glyphs_config()
    assert results_name(config, {"learner.tag": "../a/b%"}) == "results_tag=..%2Fa%2Fb%25.json"
    names = [results_name(config, {"learner.tag": 300 * "ä" + end}) for end in "xy"]
    assert len({*names}) == 2 and all(len(name.encode()) <= 205 and name.startswith("results_tag=ä") for name in names)


def test_load_run_is_quiet(copy, capfd):
    program = f"import cxgrad_jax as cx; cx.load_run({str(copy)!r})"
    subprocess.run([sys.executable, "-c", program], check=True, env=environment())
    assert capfd.readouterr() == ("", "")


def test_one_episode_is_told_without_an_interval(copy, capsys):
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.evaluation.episodes=1"]) == 0
    told = capsys.readouterr().out
    assert "(1 tasks of tiny" in told.splitlines()[-1] and "±" not in told
    assert run([f"--workdir={copy}", "--mode=evaluate", "--question=parts", "--config.evaluation.episodes=1"]) == 0
    told = capsys.readouterr().out
    assert "head adapted: " in told and "±" not in told


def test_predictions_that_are_no_numbers_are_told(copy, capsys):
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.learner.inner_lr=1e30"]) == 0
    told = capsys.readouterr()
    assert "predictions have a logit that is not a number; they count as wrong" in told.err
    assert "test accuracy 0.00 %" in told.out


def test_an_ensemble_of_more_than_the_best_is_refused(copy, capsys):
    before = sorted(copy.iterdir())
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.evaluation.ensemble=9"]) == 2
    line, words = capsys.readouterr().err, "evaluation.ensemble is 9, but .* keeps the . best checkpoints; expected at"
    assert re.search(words, line) and line.count("\n") == 1 and sorted(copy.iterdir()) == before


@pytest.mark.slow
def test_a_test_cannot_read_parameters_as_others(tiny_data, tmp_path, capsys):
    given = [flag for flag in flags(tiny_data, tmp_path / "run", train__iterations=1) if "learner." not in flag]
    assert run(["--config=baselines/r2d2", *given]) == 0
    assert run([f"--workdir={tmp_path / 'run'}", "--mode=evaluate", "--config.learner.logarithmic"]) == 2
    assert "was trained with False, and the parameters contain it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hyper_parameters", "change", "is_refused"),
    [
        ("r2d2", {"learned_regularisation": True}, {"learner.regularisation": 0.001}, True),
        ("r2d2", {}, {"learner.regularisation": 0.001}, False),
        ("r2d2", {}, {"learner.initial_scale": 1.0}, True),
        ("metal", {"alfa": True}, {"learner.inner_lr": 5.0}, True),
        ("metal", {}, {"learner.inner_lr": 5.0, "learner.query_statistics": "support"}, False),
    ],
)
def test_a_hyper_parameter_that_the_parameters_contain_cannot_be_changed(name, hyper_parameters, change, is_refused):
    config = glyphs_config()
    config.learner = learner_config(name, **hyper_parameters)
    config.model.features = 4
    images = np.zeros((2, 16, 16, 3), np.uint8)
    refusal = pytest.raises(
        UserError, match="^learner.* is .*, but run was trained with .*, and the parameters contain"
    )
    with refusal if is_refused else contextlib.nullcontext():
        check_values(change, config, Path("run"), images)


def test_load_run_gives_the_checkpoint_best_in_validation(copy):
    found = cx.load_run(str(copy))
    store = load_stores(found.config, ("test",))["test"]
    result = cx.evaluate(found.learner, found.params, build_sampler(found.config, store), episodes=6)
    assert result.accuracy == pytest.approx(results(copy)["single_model_test_accuracy"])
    assert result.ci95 == pytest.approx(results(copy)["single_model_test_ci95_tasks"])
    np.testing.assert_allclose(np.mean(result.accuracies), result.accuracy)


def test_a_runs_own_file_chooses_no_code(copy, tmp_path, monkeypatch, capsys):
    (tmp_path / "payload.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    saved = json.loads((copy / "config.json").read_text())
    saved["learner"]["name"] = "payload.f"
    (copy / "config.json").write_text(json.dumps(saved))
    assert run([f"--workdir={copy}", "--mode=evaluate"]) == 2
    assert "name it too: --config.learner.name=payload.f" in capsys.readouterr().err
    for named_so in (["--config.learner.name=payload.f"], ["--config.learner.name", "payload.f"]):
        with pytest.raises(SystemExit, match="it ran"):
            parse([f"--workdir={copy}", "--mode=evaluate", *named_so])
    for named in ((), "my_payload.f", ("payload.g",)):
        with pytest.raises(cx.UserError, match=r"load_run\(…, named=\('payload.f',\)\)"):
            cx.load_run(copy, named=named)
    with pytest.raises(SystemExit, match="it ran"):
        cx.load_run(copy, named="payload.f")


def test_a_run_of_another_format_says_which_version_reads_it(copy, capsys):
    saved = json.loads((copy / "config.json").read_text())
    for number, words in ((None, "is of version 0.1.0"), (3, "has format 3; this version reads 2")):
        content = {**saved, "format": number} if number else {k: v for k, v in saved.items() if k != "format"}
        (copy / "config.json").write_text(json.dumps(content))
        assert run([f"--workdir={copy}", "--mode=evaluate"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_running_averages_keeps_them_and_can_be_tested_by_others(tiny_data, tmp_path, capsys):
    def train(name, statistics):
        given = flags(tiny_data, tmp_path / name, learner__query_statistics=statistics, train__iterations=4)
        known = [flag for flag in given if "learner." not in flag or "query_statistics" in flag]
        assert run(["--config=baselines/proto_net", *known]) == 0
        return tmp_path / name

    workdir, other = train("running", "running"), train("other", "query")
    assert results(workdir)["query_statistics"] == "running"
    assert results(workdir)["batch_norm"].startswith("running averages of training")
    found = cx.load_run(workdir)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(found.params["statistics"]))
    assert run([f"--workdir={workdir}", "--mode=evaluate", "--config.learner.query_statistics=query"]) == 0
    tested = json.loads((workdir / "results_query_statistics=query.json").read_text())
    assert "transductive" in tested["batch_norm"]
    capsys.readouterr()
    assert run([f"--workdir={other}", "--mode=evaluate", "--config.learner.query_statistics=running"]) == 2
    assert "the parameters have no running averages; give those" in capsys.readouterr().err


def test_an_evaluation_gives_both_query_statistics_side_by_side(copy):
    trained = results(copy)
    done = run_alone(f"--workdir={copy}", "--mode=evaluate")  # with the one device that the training had
    assert done.returncode == 0, done.stderr
    told, tested = done.stdout.splitlines(), results(copy)
    both = tested.pop("by_query_statistics")
    assert tested == trained and set(both) == {"query", "support"}
    assert both["query"]["test_accuracy"] == trained["test_accuracy"]
    assert [line.split(":")[0] for line in told[:2]] == ['query_statistics="query"', 'query_statistics="support"']
    assert run([f"--workdir={copy}", "--mode=evaluate", "--config.learner.query_statistics=support"]) == 0
    support = json.loads((copy / "results_query_statistics=support.json").read_text())
    assert support["by_query_statistics"] == both and support["test_accuracy"] == both["support"]["test_accuracy"]


def test_an_evaluation_leaves_out_query_statistics_that_need_other_parameters(tiny_data, tmp_path):
    given = [flag for flag in flags(tiny_data, tmp_path / "run", train__iterations=2) if "context_dim" not in flag]
    given += ["--config=baselines/metal", "--config.learner.query_statistics=support", "--config.learner.num_steps=1"]
    assert run(given) == 0
    assert run([f"--workdir={tmp_path / 'run'}", "--mode=evaluate"]) == 0
    assert set(results(tmp_path / "run")["by_query_statistics"]) == {"support"}


def test_the_checkpoints_of_the_ensemble_one_by_one(finished):
    tested = results(finished)
    assert len(tested["checkpoint_test_accuracies"]) == tested["ensemble_size"] == 2
    assert tested["checkpoint_test_accuracies"][0] == tested["single_model_test_accuracy"]


def test_calibration_is_that_of_all_predictions(finished):
    tested, bins = results(finished), results(finished)["reliability"]
    assert sum(bins["count"]) == 6 * 3 * 2  # episodes, classes, queries
    right = sum(n * share for n, share in zip(bins["count"], bins["accuracy"], strict=True) if n)
    assert right / 36 == pytest.approx(tested["test_accuracy"], abs=1e-5)
    assert 0 <= tested["test_expected_calibration_error"] <= 1
    assert tested["test_negative_log_likelihood"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("inner_steps", ["after 0 inner steps", "after 1 inner steps", "after 2 inner steps"]),
        ("parts", ["none adapted", "head adapted", "body adapted", "all adapted"]),
        ("permutations", ["mean over the orders", "best order", "worst order"]),
    ],
)
def test_a_further_question_has_a_file_of_its_own(copy, question, answers, capsys):
    before, few = (copy / "results.json").read_bytes(), "--config.evaluation.episodes=3"
    assert run([f"--workdir={copy}", "--mode=evaluate", f"--question={question}", few]) == 0
    told = capsys.readouterr().out.splitlines()
    found = json.loads((copy / f"results_question={question}_episodes=3.json").read_text())
    assert found["question"] == question and list(found["answers"]) == answers
    assert [line.split(":")[0] for line in told[:-1]] == answers and "checkpoint" in told[-1]
    assert found["checkpoint"] == results(copy)["ensemble_iterations"][0]
    assert all(len(answer["episode_accuracies"]) == 3 for answer in found["answers"].values())
    assert (copy / "results.json").read_bytes() == before
    if question != "permutations":
        run_, last = cx.load_run(copy), answers[-1]
        store = load_stores(run_.config, ("test",))["test"]
        expected = cx.evaluate(run_.learner, run_.params, build_sampler(run_.config, store), episodes=3)
        np.testing.assert_allclose(found["answers"][last]["episode_accuracies"], expected.accuracies, atol=1e-5)


def test_a_question_is_of_an_evaluation(copy, capsys):
    assert run([f"--workdir={copy}", "--question=parts"]) == 2
    assert "--question=parts is of --mode=evaluate, not of --mode=train" in capsys.readouterr().err
    assert run([f"--workdir={copy}", "--mode=evaluate", "--question=colour"]) == 2
    assert "colour" in capsys.readouterr().err
