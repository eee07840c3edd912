"""Training from a thread and beside others, in a notebook, and in folders with odd names."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import environment, flags, results, run, told

import cxgrad_jax as cx
from cxgrad_jax import machine, main
from cxgrad_jax.command_line import Parser, override
from cxgrad_jax.errors import UserError
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.checkpoints import Checkpoints
from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.config_files import load_config
from cxgrad_jax.training.train import train

# Of these, no checkpoint can be read again from a folder with one of the last row (see ``workdir.locked``).
NAMES = (
    "plain", "with space", "user@lab", "50%", "50%20", "#1", "{a}", "a:b", "a|b", "a&b", "a+b", "a=b", "a;b", "~b",
    "kühe", "a'b", 'a"b', "lr=1e-3,steps=5", ".hidden", "1",
    "[x]", "a?b", "a*b", "a\\b",
)  # fmt: skip


def config(data_dir, **changes):
    changed = base_config()
    override(changed, flags(data_dir, data_dir, train__iterations=2, **changes)[1:], Parser(add_help=False))
    return changed


@pytest.mark.slow
def test_training_in_threads_is_the_same_as_in_the_main_thread(tiny_data, tmp_path):
    """JAX was used before, as in a notebook, and another training goes on at the same time, as in a sweep."""
    assert jnp.ones(2).sum() == 2
    rates = (1e-3, 1e-2)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(train, config(tiny_data, train__learning_rate=r), tmp_path / f"thread{r}") for r in rates]
        in_threads = [job.result() for job in jobs]
    assert in_threads[0] == train(config(tiny_data, train__learning_rate=1e-3), str(tmp_path / "main"))
    assert in_threads[0]["params_sha256"] != in_threads[1]["params_sha256"]
    assert main.run(flags(tiny_data, tmp_path / "thread0.001", train__iterations=2)) == 0  # on a run that is done


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_let_in_keeps_checkpoints(name, tmp_path):
    try:
        with workdir_of.locked(tmp_path / name):
            checkpoints, state = Checkpoints(tmp_path / name, 2), {"a": jnp.arange(6.0), "n": jnp.int32(3)}
            checkpoints.save(5, state, 0.5)
            checkpoints.close()
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
            found = Checkpoints(tmp_path / name, 2).restore(5, like)
            np.testing.assert_array_equal(found["a"], state["a"])
            assert name not in NAMES[-4:]
    except UserError as error:
        with pytest.raises(UserError, match="in its path"):
            Checkpoints(tmp_path / name, 2)
        assert name in NAMES[-4:] and "in its path" in str(error) and not (tmp_path / name).exists()
    assert {path.name for path in tmp_path.iterdir()} <= {name}


@pytest.mark.slow
def test_a_metric_learner_is_tested_with_other_ways_and_shots(tiny_data, tmp_path, capsys):
    """Its parameters depend on neither."""
    config = load_config("baselines/proto_net")
    given = flags(tiny_data, tmp_path, train__iterations=2)[1:]
    override(config, [flag for flag in given if "learner." not in flag], Parser(add_help=False))
    before = train(config, tmp_path)
    for change, words in (("episode.way=5", "episode.way=5"), ("episode.shot=3", "episode.shot=3")):
        assert main.run([f"--workdir={tmp_path}", "--mode=evaluate", f"--config.{change}"]) == 0
        assert f", {words})" in capsys.readouterr().out
        found = json.loads((tmp_path / f"results_{change.removeprefix('episode.')}.json").read_text())
        assert found["params_sha256"] == before["params_sha256"] and found["changed"] == {
            change.split("=")[0]: int(change[-1])
        }
    assert results(tmp_path) == before


@pytest.mark.slow
def test_a_gradient_learner_is_tested_with_more_shots(finished, tmp_path):
    """By the library as well: the parameters of a run serve episodes of other shots."""
    found = cx.load_run(finished)
    store = cx.data.load("tiny", "test", data_dir=found.config.data.dir, image_size=16)
    for shot in (1, 3):
        result = cx.evaluate(found.learner, found.params, cx.sampler(store, way=3, shot=shot, query=2), episodes=4)
        assert np.isfinite(result.accuracies).all() and len(result.accuracies) == 4


@pytest.mark.slow
def test_a_command_line_runs_where_jax_was_used_before(finished, tmp_path):
    """As in a notebook: JAX then has one device, whatever the cores."""
    shutil.copytree(finished, tmp_path / "run")
    code = f"""
import jax.numpy as jnp
jnp.ones(2).sum()
from cxgrad_jax.main import run
raise SystemExit(run(["--workdir={tmp_path / "run"}", "--mode=evaluate"]))
"""
    variables = {name: value for name, value in environment().items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_goes_on_on_other_devices_and_says_so(tiny_data, tmp_path):
    """Stopped at iteration 2 on one device, it goes on with two."""
    arguments = flags(tiny_data, tmp_path, train__iterations=2)
    assert main.run(arguments) == 0
    more = [*flags(tiny_data, tmp_path, train__iterations=4), "--config.parallel.num_devices=2"]
    done = run(*more, devices=2)
    assert done.returncode == 0, done.stderr
    (line,) = told(done.stderr)
    assert "the run goes on with 2 cpu" in line and "after 1 cpu" in line and "to rounding, not bit for bit" in line
    assert results(tmp_path)["iterations"] == 4


@pytest.mark.slow
def test_a_run_goes_on_on_another_processor_and_says_so(tiny_data, tmp_path, monkeypatch, capsys):
    assert main.run(flags(tiny_data, tmp_path, train__iterations=2)) == 0
    here = machine.processor()
    assert main.run(flags(tiny_data, tmp_path, train__iterations=4)) == 0
    assert "goes on with" not in capsys.readouterr().err
    monkeypatch.setattr("cxgrad_jax.training.checkpoints.processor", lambda: "another CPU")
    assert main.run(flags(tiny_data, tmp_path, train__iterations=6)) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "goes on with" in line]
    assert f"goes on with 1 cpu, another CPU, {machine.cores()} cores" in line and f" after 1 cpu, {here}" in line
    assert "to rounding, not bit for bit" in line
