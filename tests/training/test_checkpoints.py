"""The newest and the best checkpoints stay, complete and unchanged, or are refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxgrad_jax.errors import UserError
from cxgrad_jax.saving import params_sha256
from cxgrad_jax.training.checkpoints import NOT_VALIDATED, Checkpoints, machine


def state(seed: int):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {"kernel": jax.random.normal(keys[0], (4, 5)), "scale": (jnp.full(3, jnp.nan), jnp.int32(seed))}


def like(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def names(checkpoints: Checkpoints) -> list[int]:
    return sorted(int(path.name) for path in checkpoints.directory.iterdir())


def test_the_newest_and_the_best_stay_and_the_later_of_a_tie(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.latest() is None
    with pytest.raises(UserError, match="has no validated checkpoint; train for at least one epoch first"):
        checkpoints.best()
    kept = []
    for i, accuracy in enumerate([0.5, 0.9, 0.9, 0.1, 0.9, None, 0.2]):
        if i == 4:  # another process goes on
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path, 2)
        checkpoints.save(i + 1, state(i + 1), NOT_VALIDATED if accuracy is None else accuracy)
        kept.append((names(checkpoints), checkpoints.best()[:2], checkpoints.latest()))
    assert kept == [
        ([1], [1], 1),
        ([1, 2], [2, 1], 2),
        ([2, 3], [3, 2], 3),
        ([2, 3, 4], [3, 2], 4),
        ([3, 5], [5, 3], 5),
        ([3, 5, 6], [5, 3], 6),
        ([3, 5, 7], [5, 3], 7),
    ]


def test_what_comes_back_is_what_was_saved(tmp_path):
    Checkpoints(tmp_path, 5).save(3, state(3), 0.5)
    for read_only in (True, False):
        restored = Checkpoints(tmp_path, 5, read_only).restore(3, like(state(3)))
        assert params_sha256(restored) == params_sha256(state(3))
        assert jax.tree.leaves(restored)[0].sharding == state(3)["kernel"].sharding


def test_remains_of_a_kill_are_no_checkpoints_and_go(tmp_path, monkeypatch):
    def killed(source, target, *rest, **keywords):
        raise KeyboardInterrupt

    checkpoints = Checkpoints(tmp_path, 5)
    checkpoints.save(1, state(1), 0.5)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.rename", killed)
        checkpoints.save(2, state(2), 0.5)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "1" / "default", folder / "dropped" / "0")
    remains = {path.name for path in folder.iterdir()}
    assert len(remains) == 3 and "2" not in remains
    assert Checkpoints(tmp_path, 5, read_only=True).latest() == 1  # touches nothing
    assert {path.name for path in folder.iterdir()} == remains
    assert names(Checkpoints(tmp_path, 5)) == [1]


def test_reading_makes_no_folder(tmp_path):
    assert Checkpoints(tmp_path / "run", 5, read_only=True).latest() is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", [{"kernel": np.zeros((4, 6))}, {"bias": np.zeros(5)}])
def test_other_shapes_are_refused(tmp_path, other):
    checkpoints = Checkpoints(tmp_path, 5)
    checkpoints.save(1, state(1), 0.5)
    wrong = jax.tree.map(jnp.asarray, {**state(1), **other})
    with pytest.raises(UserError, match=f"checkpoints/1 has .*{next(iter(other))}.*, not .*; are the images of"):
        checkpoints.restore(1, like(wrong))


def test_no_damage_of_any_file_goes_unseen(tmp_path, capfd):
    """Half of a file, none of it, one bit of it changed, for every file: the state comes back or is refused."""
    checkpoints = Checkpoints(tmp_path / "run", 5)
    checkpoints.save(1, state(1), 0.5)
    checkpoints.close()
    refused = 0
    for path in sorted(path for path in (tmp_path / "run").rglob("*") if path.is_file()):
        content = path.read_bytes()
        flipped = bytearray(content)
        if flipped:
            flipped[len(flipped) // 2] ^= 16
        for damaged in (content[: len(content) // 2], None, bytes(flipped)):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            capfd.readouterr()
            try:
                restored = Checkpoints(tmp_path / "run", 5).restore(1, like(state(1)))
                assert params_sha256(restored) == params_sha256(state(1))
            except UserError as error:
                refused += 1
                assert f"{tmp_path}/run/checkpoints/1 " in str(error)
                assert "\n" not in str(error) and "Traceback" not in capfd.readouterr().err
            path.write_bytes(content)
    assert refused >= 9


def test_a_record_of_something_else_is_refused(tmp_path):
    Checkpoints(tmp_path, 5).save(1, state(1), 0.5)
    path = tmp_path / "checkpoints" / "1" / "metrics" / "metrics"
    saved = json.loads(path.read_text())
    for record in ([], {}, {**saved, "val_accuracy": "high"}, {**saved, "sha256": ""}):
        path.write_text(json.dumps(record))
        with pytest.raises(UserError, match="checkpoints/1 is damaged"):
            Checkpoints(tmp_path, 5)


def test_a_checkpoint_that_vanished_beside_a_training_is_not_called_damaged(tmp_path):
    Checkpoints(tmp_path, 5).save(1, state(1), 0.5)
    reader = Checkpoints(tmp_path, 5, read_only=True)
    assert reader.all() == [1]
    shutil.rmtree(tmp_path / "checkpoints" / "1")
    with pytest.raises(UserError, match="checkpoints/1 is gone: a training that goes on keeps only its best"):
        reader.restore(1, like(state(1)))


def test_no_record_of_any_kind_is_a_traceback(tmp_path):
    Checkpoints(tmp_path, 5).save(1, state(1), 0.5)
    path = tmp_path / "checkpoints" / "1" / "metrics" / "metrics"
    saved = json.loads(path.read_text())
    for record in ("[" * 100000, json.dumps({**saved, "shapes": ["a"]}), json.dumps({**saved, "sha256": 1}), '"\xff"'):
        path.write_bytes(record.encode("latin-1"))
        with pytest.raises(UserError, match="checkpoints/1 is damaged"):
            Checkpoints(tmp_path, 5)


def no_space(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("ending", [no_space, "whole"])
def test_a_validation_that_comes_later_endangers_no_checkpoint(ending, tmp_path, monkeypatch):
    """A run that was stopped in its validation has saved its state; going on, it only adds the accuracy."""
    Checkpoints(tmp_path, 2).save(1, state(1))
    checkpoints = Checkpoints(tmp_path, 2)
    assert not checkpoints.is_validated(1)
    if ending == "whole":
        checkpoints.save(1, state(1), 0.5)
        assert checkpoints.best() == [1]
    else:
        monkeypatch.setattr("cxgrad_jax.files.os.fsync", no_space)
        with pytest.raises(UserError, match="checkpoints/1/metrics/metrics cannot be written: No space left"):
            checkpoints.save(1, state(1), 0.5)
        monkeypatch.undo()
    again = Checkpoints(tmp_path, 2)
    assert params_sha256(again.restore(1, like(state(1)))) == params_sha256(state(1))
    assert again.is_validated(1) == (ending == "whole") and names(again) == [1]


def test_what_to_delete_where_an_older_checkpoint_is_damaged(tmp_path):
    """Without the later ones the run trains again what the damaged one held, and the best are the best again."""
    checkpoints = Checkpoints(tmp_path, 5)
    for i in (1, 2, 10):
        checkpoints.save(i, state(i), 0.5)
    (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
    with pytest.raises(
        UserError, match=r"/2 is damaged .*to go on without it; to train again .* later ones \(10\), too$"
    ):
        Checkpoints(tmp_path, 5)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_end_of_a_run_takes_no_place_among_the_best_of_its_epochs(stopped, tmp_path):
    """It is in the run's own test. Once the run is extended, what is left is what a longer run would have kept."""
    for i, accuracy in ((1, 0.5), (2, 0.6), (3, 0.4)):
        Checkpoints(tmp_path, 2).save(i, state(i), accuracy)
    checkpoints = Checkpoints(tmp_path, 2)
    if stopped:
        checkpoints.save(4, state(4))
    checkpoints.save(4, state(4), 0.9, ends_epoch=False)
    assert names(checkpoints) == [1, 2, 4] and checkpoints.best() == [4, 2, 1]
    checkpoints.withdraw_accuracy(4)
    assert checkpoints.best() == [2, 1] and not Checkpoints(tmp_path, 2).is_validated(4)
    checkpoints.save(5, state(5), 0.7)
    assert names(checkpoints) == [2, 5] and checkpoints.best() == [5, 2]


def test_a_checkpoint_says_what_its_bits_depend_on(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, 2, tasks_at_once=4)
    checkpoints.save(1, state(1))
    told = checkpoints.machine(1)
    assert told == machine(state(1), 4) and f", jax {jax.__version__}, float32, 4 task(s) at once" in told
    assert machine(state(1), 2) != told
    jax.config.update("jax_enable_x64", True)
    try:
        assert "float64" in machine(state(1), 4)
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("keep_every", [0, 3])
def test_a_validation_that_comes_later_leaves_what_an_earlier_one_leaves(keep_every, tmp_path):
    accuracies = [0.5, 0.9, 0.7, 0.9, 0.8, 0.95]
    for name, stopped in (("whole", ()), ("stopped", (3, 6))):
        for i, accuracy in enumerate(accuracies, start=1):
            checkpoints = Checkpoints(tmp_path / name, 2, keep_every=keep_every)
            if i in stopped:
                checkpoints.save(i, state(i))
                checkpoints.save(i, state(i))  # stopped again
                assert not checkpoints.is_validated(i)
            checkpoints.save(i, state(i), accuracy)
    whole, stopped = (Checkpoints(tmp_path / name, 2) for name in ("whole", "stopped"))
    assert names(stopped) == names(whole) == ([3, 4, 6] if keep_every else [4, 6])
    assert stopped.best() == whole.best() and stopped.best()[:2] == [6, 4]
