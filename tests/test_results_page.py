"""docs/results.md is what docs/results.json gives, and that is what finished runs say."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from runs import results

DOCS = Path(__file__).parents[1] / "docs"
PAGE = runpy.run_path(str(DOCS / "results.py"))


def made(run, learner="cxgrad", right=(30, 45), **changes):
    return {
        "run": run, "commit": "0123456", "command": "cxgrad train", "data": "cifar_fs 32×32", "model": "conv4 48",
        "way": 5, "shot": 1,
        "learner": learner, "start": "", "iterations": 2000, "tasks": 4, "query_statistics": "query",
        "transductive": True, "seed": 0, "checkpoints": 5, "validations": [[500, 0.3], [1000, 0.4], [2000, 0.5]],
        "queries": 75, "right": list(right), **changes,
    }  # fmt: skip


def rows(text, heading):
    section = text.split(f"### {heading}\n")[1].split("\n#")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")][
        2:
    ]


def test_the_page_is_made_of_the_file():
    records = list(PAGE["read"](DOCS / "results.json").values())
    assert (DOCS / "results.md").read_text() == PAGE["page"](records)
    assert all(len(each["right"]) == 600 for each in records)


def test_seeds_are_one_row_and_kinds_stand_apart():
    text = PAGE["page"]([
        made("a/seed_0"), made("a/seed_1", seed=1, right=(45, 60)), made("b", "maml", (15, 45)),
        made("c", "proto_net", query_statistics="running", transductive=False, shot=5),
        made("d", "maml", start="pre", iterations=0, tasks=4, validations=[[0, 0.5]]),
    ])  # fmt: skip
    (inductive,) = rows(text, "Inductive")
    assert inductive[:4] == ["5", "`proto_net`", "scratch", "2,000 × 4"] and inductive[-1] == "72.0"
    cxgrad, maml, started = rows(text, "Transductive")
    assert cxgrad[1] == "`cxgrad`" and cxgrad[5:8] == ["2", "60.00", f"{100 * 1.96 * 0.1 / 2**0.5:.2f}"]
    assert cxgrad[8] == "127.06" and cxgrad[9:] == ["40.0 → 50.0", "–"]  # t of one degree of freedom, 12.706
    assert maml[6:] == ["40.00", "27.72", "–", "40.0 → 50.0", "58.9 (56.8)"]
    assert started[2:4] == ["pre", "0"] and started[-2:] == ["–", "–"]
    assert rows(text, "Differences on the same episodes") == [
        ["1", "`cxgrad`, scratch, against `maml`", "query", "2,000", "1", "+10.00 ± 13.86", "0.5000"],
    ]  # fmt: skip


def test_a_start_is_compared_with_scratch_and_maml_from_the_same_start_and_inductive_with_transductive():
    text = PAGE["page"]([
        made("a"), made("b", start="pre", right=(45, 75)), made("c", "maml", (30, 30), start="pre"),
        made("d", "maml", start="pre", shot=5), made("e", start="pre", query_statistics="support", transductive=False),
    ])  # fmt: skip
    found = {row[1]: row[5] for row in rows(text, "Differences on the same episodes")}
    assert found == {
        "`cxgrad`, pre, against scratch": "+30.00 ± 13.86",
        "`cxgrad`, pre, against `maml`": "+40.00 ± 27.72",
        "`cxgrad`, pre, against `query`": "-30.00 ± 13.86",
    }


def test_answers_to_further_questions_stand_beside_the_test(finished, tmp_path):
    assert "What adaptation does" not in PAGE["page"]([made("a"), made("b", answers={}, alone=0.5)])
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for question, name, accuracy in (("inner_steps", "after 5 inner steps", 0.25), ("parts", "head adapted", 0.75)):
        answer = {"test_accuracy": accuracy, "test_ci95_tasks": 0.01, "episode_accuracies": [accuracy]}
        content = {"answers": {name: answer}, "num_tasks": 1}
        (run / f"results_question={question}.json").write_text(json.dumps(content))
    PAGE["main"]([str(run), "--commit=0123456"], tmp_path)
    (row,) = rows((tmp_path / "results.md").read_text(), "What adaptation does")
    tested = results(finished)
    assert row[0] == "run" and row[2] == f"{100 * tested['single_model_test_accuracy']:.2f}"
    assert row[3:] == ["–", "–", "25.00 ± 1.00", "–", "–", "75.00 ± 1.00", "–", "–", "–", "–"]


def test_runs_are_added_once_and_without_a_path_of_this_machine(finished, tmp_path):
    docs, seeds = tmp_path / "docs", tmp_path / "seeds"
    docs.mkdir()
    for seed in range(2):
        shutil.copytree(finished, seeds / "cxgrad" / f"seed_{seed}")
    pages = []
    for arguments in 2 * ([str(seeds), str(finished), "--commit=0123456"],) + ([],):
        PAGE["main"](arguments, docs)
        pages.append((docs / "results.md").read_text())
    page, *again = pages
    assert again == [page, page]
    records = json.loads((docs / "results.json").read_text())
    assert [each["run"] for each in records] == ["run", "seeds/cxgrad/seed_0", "seeds/cxgrad/seed_1"]
    tested = results(finished)
    for each in records:
        np.testing.assert_allclose(PAGE["shares"](each), tested["episode_accuracies"], atol=1e-6)
        assert PAGE["accuracy"](each)["test_accuracy"] == pytest.approx(tested["test_accuracy"])
        assert each["learner"] == "cxgrad, context_dim=4, first_order=True, num_steps=2" and each["commit"] == "0123456"
        assert str(tmp_path) not in json.dumps(each) and str(finished.parent) not in json.dumps(each)
    assert "tiny 16×16, conv4 4" in page and "--config.data.name=tiny" in page.split("## Commands")[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [(["nowhere", "--commit=0123456"], "nowhere has no results.json"), (["nowhere"], "--commit must name the commit")],
)
def test_mistakes_are_told(words, line, tmp_path, capsys):
    with pytest.raises(SystemExit):
        PAGE["main"](words, tmp_path)
    assert line in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_two_runs_of_one_name_are_refused(finished, tmp_path, capsys):
    for learner in ("cxgrad", "maml"):
        shutil.copytree(finished, tmp_path / learner / "seed_0")
    (tmp_path / "docs").mkdir()
    given = [str(tmp_path / learner / "seed_0") for learner in ("cxgrad", "maml")]
    with pytest.raises(SystemExit):
        PAGE["main"]([*given, "--commit=0123456"], tmp_path / "docs")
    assert "two of the runs are called seed_0" in capsys.readouterr().err and not list((tmp_path / "docs").iterdir())


def test_a_run_that_is_not_finished_is_refused(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    with pytest.raises(SystemExit):
        PAGE["main"]([str(tmp_path / "run"), "--commit=0123456"], tmp_path)
    assert "config.json does not exist" in capsys.readouterr().err and not (tmp_path / "results.json").exists()
