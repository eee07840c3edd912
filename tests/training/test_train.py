"""Training is deterministic, survives every kind of interruption bit for bit, and writes what it promises."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from runs import command, environment, flags, outcome, results, run, told

from cxgrad_jax import parallel
from cxgrad_jax.episodes import Sampler
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import episode_accuracies, over_episodes, query_logits
from cxgrad_jax.fitting import outer_adam
from cxgrad_jax.training import build
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.build import abstract_state
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.metrics_file import read_metrics
from cxgrad_jax.training.tensorboard import Board

# Code that runs before the command line. The first dies in what makes a checkpoint appear, or in what removes an old
# one; the second sends signals to its own process after iteration 5; the third in the middle of the test at the end.
DIE = """
import os, re, shutil, signal
def die(): os.kill(os.getpid(), signal.SIGKILL)
rename, rmtree = os.rename, shutil.rmtree
def dying_rename(source, target, *rest, **keywords):
    final = re.search(r"checkpoints/4$", str(target))
    if final and "MOMENT" == "before": die()
    rename(source, target, *rest, **keywords)
    if final and "MOMENT" == "after": die()
def dying_rmtree(path, *rest, **keywords):
    if "MOMENT" == "removing" and os.path.isdir(path) and re.search(r"checkpoints/(dropped|[0-9]+)$", str(path)):
        os.remove(next(os.path.join(folder, files[0]) for folder, _, files in os.walk(path) if files))
        die()
    rmtree(path, *rest, **keywords)
os.rename, shutil.rmtree = dying_rename, dying_rmtree
"""
TELL_COMPILED = """
import logging
import jax
handler = logging.StreamHandler()
handler.setFormatter(logging.Formatter("told: %(message)s"))  # jax's own handlers may print a message twice
logging.getLogger("jax._src.interpreters.pxla").addHandler(handler)
jax.config.update("jax_log_compiles", True)
"""
SIGNAL_AT_5 = """
import os
from cxgrad_jax.training.metrics_file import MetricsFile
write = MetricsFile.write
def interrupting(self, **record):
    write(self, **record)
    for number in (NUMBERS) if record["iteration"] == 5 else (): os.kill(os.getpid(), number)
MetricsFile.write = interrupting
"""
KILL_AFTER_EVENTS_OF_5 = """
import os, signal
from cxgrad_jax.training.tensorboard import Board
write = Board.write
def killing(self, iteration, split, numbers):
    write(self, iteration, split, numbers)
    if iteration == 5: os.kill(os.getpid(), signal.SIGKILL)
Board.write = killing
"""
SIGNAL_IN_VALIDATION = """
import os
from cxgrad_jax import Sampler
batch, validations = Sampler.batch, []
def interrupting(self, indices):
    if self.store.split == "val":
        validations.append(indices)
        if len(validations) == 2: os.kill(os.getpid(), NUMBERS)
    return batch(self, indices)
Sampler.batch = interrupting
"""
SIGNAL_IN_TEST = """
import os
from cxgrad_jax.training import testing
compute = testing.params_sha256
def interrupting(*arguments):
    os.kill(os.getpid(), NUMBERS)
    return compute(*arguments)
testing.params_sha256 = interrupting
"""


def test_results_have_all_fields_and_the_formulas_hold(finished, tiny_data):
    final = results(finished)
    assert set(final) == {
        "test_accuracy", "test_ci95_tasks", "test_ci95_pooled", "num_tasks", "ensemble_size", "ensemble_iterations",
        "single_model_test_accuracy", "single_model_test_ci95_tasks", "checkpoint_test_accuracies",
        "episode_accuracies",
        "test_negative_log_likelihood", "test_expected_calibration_error", "reliability",
        "test_data", "batch_norm", "query_statistics", "iterations", "params_sha256", "versions", "config",
    }  # fmt: skip
    assert set(final["versions"]) == {"jax", "flax", "cxgrad_jax"}
    saved = json.loads((finished / "config.json").read_text())
    assert saved.pop("format") == workdir_of.FORMAT and final["config"] == saved

    # By hand: the mean of the logits of the best checkpoints, on test episodes that depend on evaluation.seed alone.
    config = workdir_of.read_config(finished)
    validated = {r["iteration"]: r["val_accuracy"] for r in read_metrics(finished / "metrics.jsonl") if "val_loss" in r}
    best = sorted(validated, key=lambda i: (-validated[i], -i))[:2]
    assert list(validated) == list(range(2, 17, 2)) and final["ensemble_iterations"] == best
    store = build.load_stores(config, ("test",))["test"]
    learner, mesh, shape = (
        build.build_learner(config),
        parallel.task_mesh(1),
        build.episode_shape(config),
    )
    evaluator = over_episodes(query_logits(learner), Sampler(store, shape, config.evaluation.seed).batch, 6, mesh)
    checkpoints = Checkpoints(finished, 2, read_only=True)
    like = abstract_state(learner, outer_adam(1e-3), np.asarray(store.images[:2]), mesh)
    logits = [evaluator(checkpoints.restore(iteration, like).params) for iteration in best]
    labels = shape.labels()[1]
    accuracies = episode_accuracies(np.mean(logits, axis=0), labels)
    p = accuracies.mean()
    assert final["test_accuracy"] == p
    assert final["single_model_test_accuracy"] == episode_accuracies(logits[0], labels).mean()
    assert final["test_ci95_tasks"] == pytest.approx(1.96 * accuracies.std() / 6**0.5)
    assert final["test_ci95_pooled"] == pytest.approx(1.96 * (p * (1 - p) / (6 * 6)) ** 0.5)


def test_run_again_on_a_finished_run_changes_nothing(finished, tiny_data, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert run(*flags(tiny_data, tmp_path)).returncode == 0
    assert outcome(tmp_path) == outcome(finished)


def test_random_kills_leave_the_same_run(finished, tiny_data, tmp_path):
    """$CXGRAD_KILLS kills (one unless set) at random moments, one life after the other, each going on with the run."""
    rng, runs, writing = random.Random(1), [tmp_path / "0"], 0  # whose first kill is in the loop
    wanted = int(os.environ.get("CXGRAD_KILLS", "1"))
    kills = 0
    while kills < wanted:
        with _start(tiny_data, runs[-1]) as process:
            if rng.random() < 0.8:
                assert process.stdout
                for line in process.stdout:
                    if "validation" in line:  # of this life: the loop is going
                        break
                time.sleep(rng.uniform(0, 0.3))
            else:
                time.sleep(rng.uniform(0, 4))
            process.kill()
            if process.wait() == -signal.SIGKILL:
                kills += 1
                writing += bool(list(runs[-1].glob("checkpoints/*tmp*")))
            else:  # the run was done before
                runs.append(tmp_path / str(len(runs)))
    for workdir in runs:
        assert run(*flags(tiny_data, workdir)).returncode == 0
        assert outcome(workdir) == outcome(finished)
        assert not list(workdir.glob("checkpoints/*tmp*"))
    print(f"{kills} kills over {len(runs)} run(s), {writing} in the writing of a checkpoint: {outcome(finished)[0]}")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after", "removing"])
def test_killed_in_the_writing_of_a_checkpoint(finished, tiny_data, tmp_path, moment):
    workdir = tmp_path / "run"
    killed = run(*flags(tiny_data, workdir), before=DIE.replace("MOMENT", moment))
    assert killed.returncode == -signal.SIGKILL
    remains = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert ("4" in remains) == (moment != "before")
    assert any("tmp" in name for name in remains) == (moment == "before")
    assert ("dropped" in remains) == (moment == "removing")
    assert run(*flags(tiny_data, workdir)).returncode == 0
    assert outcome(workdir) == outcome(finished)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {
        path.name for path in (finished / "checkpoints").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_between_validations(finished, tiny_data, tmp_path, number):
    workdir = tmp_path / "run"
    stopped = run(*flags(tiny_data, workdir), before=SIGNAL_AT_5.replace("NUMBERS", f"{int(number)},"))
    assert stopped.returncode == 130
    assert told(stopped.stderr) == ["cxgrad_jax: stopped at iteration 5, saved; run the same command to go on"]
    assert Checkpoints(workdir, 2, read_only=True).latest() == 5 and not (workdir / "results.json").exists()

    resumed = run(*flags(tiny_data, workdir), before=TELL_COMPILED)
    assert resumed.returncode == 0
    assert outcome(workdir) == outcome(finished)
    # Nothing is compiled twice: one program trains, one evaluates (validation and test), and three draw episodes.
    compiled = re.findall(r"told: Compiling jit\((\w+|<lambda>)\)", resumed.stderr)
    assert compiled.count("program") == compiled.count("results_of") == 1 and "init" not in compiled
    assert len(compiled) <= 8, compiled


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_a_validation(finished, tiny_data, tmp_path, number):
    """The validation of iteration 4 is cut short, and made when the run goes on."""
    workdir = tmp_path / "run"
    stopped = run(*flags(tiny_data, workdir), before=SIGNAL_IN_VALIDATION.replace("NUMBERS", str(int(number))))
    assert stopped.returncode == 130
    assert told(stopped.stderr) == ["cxgrad_jax: stopped at iteration 4, saved; run the same command to go on"]
    checkpoints = Checkpoints(workdir, 2, read_only=True)
    assert checkpoints.latest() == 4 and not checkpoints.is_validated(4) and checkpoints.is_validated(2)
    assert run(*flags(tiny_data, workdir)).returncode == 0
    assert outcome(workdir) == outcome(finished)


@pytest.mark.slow
def test_second_signal_ends_at_once(finished, tiny_data, tmp_path):
    twice = SIGNAL_AT_5.replace("NUMBERS", f"{int(signal.SIGINT)}, {int(signal.SIGTERM)}")
    assert run(*flags(tiny_data, tmp_path), before=twice).returncode == -signal.SIGTERM
    assert run(*flags(tiny_data, tmp_path)).returncode == 0
    assert outcome(tmp_path) == outcome(finished)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_test_at_the_end(finished, tiny_data, tmp_path, number):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "results.json").unlink()
    arguments = flags(tiny_data, tmp_path)
    stopped = run(*arguments, before=SIGNAL_IN_TEST.replace("NUMBERS", str(int(number))))
    assert (stopped.returncode, told(stopped.stderr)) == (130, ["cxgrad_jax: interrupted"])
    assert not (tmp_path / "results.json").exists()
    assert run(*arguments).returncode == 0
    assert outcome(tmp_path) == outcome(finished)


@pytest.mark.slow
def test_a_checkpoint_that_was_removed_is_made_again(finished, tiny_data, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "16")
    assert run(*flags(tiny_data, tmp_path)).returncode == 0
    # The checkpoints dropped meanwhile are lost, so those of the ensemble may differ; the training may not.
    assert outcome(tmp_path)[:2] == outcome(finished)[:2]


@pytest.mark.slow
def test_images_on_the_device_are_the_same_run(tiny_data, tmp_path):
    """In a user's machine code. The tests' own is made piece by piece and may round the two programs differently."""
    for storage in ("host", "device"):
        done = run(*flags(tiny_data, tmp_path / storage, data__storage=storage), users=True)
        assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "host")[:2] == outcome(tmp_path / "device")[:2]


@pytest.mark.slow
def test_two_devices_agree_with_one(finished, tiny_data, tmp_path):
    done = run(*flags(tiny_data, tmp_path, parallel__num_devices=2), devices=2)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_metrics(workdir / "metrics.jsonl") for workdir in (tmp_path, finished))
    assert [record["iteration"] for record in ours] == [record["iteration"] for record in theirs]
    for one, other in zip(ours[:6], theirs[:6], strict=True):  # later, training itself has made rounding grow
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_another_seed_is_another_run(finished, tiny_data, tmp_path):
    assert run(*flags(tiny_data, tmp_path, seed=1, train__iterations=2)).returncode == 0
    first = read_metrics(finished / "metrics.jsonl")[0]
    assert read_metrics(tmp_path / "metrics.jsonl")[0] != first


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tiny_data, tmp_path):
    done = run(*flags(tiny_data, tmp_path, learner__inner_lr=1e30))
    assert done.returncode == 2
    assert re.fullmatch(
        r"cxgrad_jax: the (loss|gradient norm) became (nan|inf) at iteration 1; none was saved yet; "
        r"lower train.learning_rate or learner.context_lr or learner.inner_lr, in a run with another --workdir",
        told(done.stderr)[0],
    )
    assert not list((tmp_path / "checkpoints").iterdir()) and not (tmp_path / "results.json").exists()


def events(workdir) -> list[tuple[int, str, float]]:
    """Step, tag and value of all of TensorBoard's events."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in (workdir / "tensorboard").iterdir():
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            size = int.from_bytes(content[:8], "little")
            event = event_pb2.Event.FromString(content[12 : 12 + size])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            content = content[16 + size :]
    return sorted(found)


@pytest.mark.slow
def test_tensorboard_events_are_those_of_the_metrics_each_once(tiny_data, tmp_path):
    """Killed after iteration 5, whose events are written, the run goes on from the checkpoint of iteration 4."""
    pytest.importorskip("tensorboardX")
    arguments = flags(tiny_data, tmp_path, train__tensorboard=True)
    killed = run(*arguments, before=KILL_AFTER_EVENTS_OF_5)
    assert killed.returncode == -signal.SIGKILL and events(tmp_path)[-1][0] == 5
    assert run(*arguments).returncode == 0
    expected = [
        (record["iteration"], name.replace("_", "/", 1), np.float32(value))
        for record in read_metrics(tmp_path / "metrics.jsonl")
        for name, value in record.items()
        if name != "iteration"
    ]
    assert events(tmp_path) == sorted(expected)


def test_tensorboard_events_after_the_resume_point_are_dropped(tmp_path):
    pytest.importorskip("tensorboardX")
    for iteration, last in ((0, 4), (2, 3)):
        board = Board(tmp_path / "tensorboard", iteration)
        for i in range(iteration + 1, last + 1):
            board.write(i, "train", {"loss": float(i + 10 * iteration), "not_finite": float("nan")})
        board.close()
    (first, second) = sorted((tmp_path / "tensorboard").iterdir())
    second.write_bytes(second.read_bytes()[:-3])  # cut short by a kill
    Board(tmp_path / "tensorboard", 3).close()
    assert events(tmp_path) == [(1, "train/loss", 1.0), (2, "train/loss", 2.0)]


def test_tensorboard_events_of_a_validation_that_will_be_made_again_are_dropped(tmp_path):
    pytest.importorskip("tensorboardX")
    board = Board(tmp_path / "tensorboard", 0)
    for i in (1, 2):
        board.write(i, "train", {"loss": 0.5})
        board.write(i, "val", {"loss": 0.5})
    board.close()
    Board(tmp_path / "tensorboard", 2, is_validated=False).close()
    assert [(step, tag) for step, tag, _ in events(tmp_path)] == [(1, "train/loss"), (1, "val/loss"), (2, "train/loss")]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tensorboardX leaves its file open
def test_tensorboard_events_that_cannot_be_written_are_told(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(UserError, match="tensorboard cannot be written: File exists"):
        Board(tmp_path / "tensorboard", 0)
    board = Board(tmp_path / "other", 0)
    board._writer._py_recordio_writer._writer = open("/dev/full", "wb")
    with pytest.raises(UserError, match="other cannot be written: No space left on device"):
        board.write(1, "train", {"loss": 1.0})
    board.close()


def _start(data_dir, workdir) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*flags(data_dir, workdir)),
        env={**environment(), "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
