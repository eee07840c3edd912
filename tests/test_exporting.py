"""Programs that are written, read back and run give the learner's own numbers, in the form of every platform."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from flax.core import freeze
from small import WAY, make, make_episode

import cxgrad_jax as cx
from cxgrad_jax import exporting, parallel
from cxgrad_jax.fitting import TrainState, train_program

EPISODE = make_episode()
BATCH = jax.tree.map(lambda *x: np.stack(x), EPISODE, make_episode(1))
OPTIMISER = optax.chain(optax.clip(1.0), optax.adam(1e-2))
LOGITS, GRADIENTS = 1e-5, 1e-4  # as the documentation states them, of the largest value


def close(ours, theirs, bound):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(np.max(np.abs(b), initial=0), 1e-3))


@pytest.fixture(scope="module", params=["cxgrad", "proto_net"])
def written(request, tmp_path_factory):
    """A learner, its parameters and the file of its programs."""
    learner, _, params = make(request.param, EPISODE, **({"num_steps": 2} if request.param == "cxgrad" else {}))
    path = tmp_path_factory.mktemp("programs") / "learner.programs"
    cx.export(path, learner, params, BATCH, OPTIMISER)
    return learner, params, path


@pytest.mark.slow_except("proto_net-cpu")
@pytest.mark.parametrize("form", exporting.FORMS)
def test_the_numbers_are_the_learners_own(written, form):
    learner, params, path = written
    exported = exporting._load(path, form)
    close(exported.params, params, 0)
    adapted = exported.adapt(exported.params, *EPISODE[:2])
    expected = jax.jit(learner.adapt)(params, *EPISODE[:2])
    close(adapted, expected, GRADIENTS)
    logits = exported.predict(exported.params, adapted, EPISODE.query_images)
    assert logits.shape == (2 * WAY, WAY)
    close(logits, jax.jit(learner.predict)(params, expected, EPISODE.query_images), LOGITS)
    expected = jax.jit(jax.value_and_grad(cx.mean_loss(learner), has_aux=True))(params, BATCH)
    close(exported.loss_and_gradients(exported.params, BATCH), expected, GRADIENTS)


@pytest.mark.slow
@pytest.mark.parametrize("form", exporting.FORMS)
def test_an_outer_iteration_is_that_of_a_training(written, form):
    learner, params, path = written
    mesh = parallel.task_mesh(1)
    exported: Any = exporting._load(path, form)
    program = train_program(
        learner.loss, OPTIMISER, lambda source, *_: source, mesh, jax.sharding.PartitionSpec("task"), 1
    )
    state: Any = TrainState(params, OPTIMISER.init(params), jnp.zeros((), jnp.int32))
    close(exported.state, state, 0)
    state, theirs = program(parallel.put(mesh, jax.tree.map(np.array, state)), parallel.put(mesh, BATCH))
    ours, metrics = exported.train_step(exported.state, BATCH)
    assert int(ours.iteration) == 1
    close(metrics, jax.tree.map(lambda x: x[0], theirs), GRADIENTS)
    close(ours.opt_state[1][0].mu, state.opt_state[1][0].mu, GRADIENTS)


@pytest.mark.slow_except("proto_net")
def test_each_program_is_for_every_platform(written):
    arrays = safetensors.numpy.load_file(written[2])
    for name in ("adapt", "predict", "loss_and_gradients", "train_step"):
        platforms = {
            form: exporting._jax_export().deserialize(bytearray(arrays[f"{form}/{name}"].tobytes())).platforms
            for form in exporting.FORMS
        }
        assert platforms == {"cpu": ("cpu",), "accelerator": ("cpu", "cuda", "tpu")}


@pytest.mark.slow_except("proto_net")
def test_other_shapes_and_files_get_one_line(written, tmp_path):
    learner, params, path = written
    exported = cx.load_exported(path)
    with pytest.raises(cx.UserError, match=r"argument \[1\] of adapt is float\d+\[3, 16, 16, 3\]; it was exported for"):
        exported.adapt(exported.params, EPISODE.support_images[:3], EPISODE.support_labels)
    for wrong, kind in (("a", "str"), ([0, 0, 1, 1, 2, 2], "list"), (None, "NoneType"), (np.array(["a"]), "ndarray")):
        with pytest.raises(cx.UserError, match=rf"argument \[2\] of adapt is a {kind}; it was exported for int32\["):
            exported.adapt(exported.params, EPISODE.support_images, wrong)
    with pytest.raises(cx.UserError, match="give a batch of episodes"):
        cx.export(tmp_path / "x", learner, params, EPISODE)
    with pytest.raises(cx.UserError, match="nowhere does not exist; expected a file that cx.export wrote"):
        cx.load_exported(tmp_path / "nowhere")
    cx.save(tmp_path / "saved", learner, params)
    with pytest.raises(cx.UserError, match="saved is a file of cx.save, which .*; expected one that cx.export wrote"):
        cx.load_exported(tmp_path / "saved")
    with pytest.raises(cx.UserError, match="an exported program, which cx.load_exported reads; expected"):
        cx.load(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    with pytest.raises(cx.UserError, match="damaged is damaged"):
        cx.load_exported(tmp_path / "damaged")


def test_without_an_optimiser_there_is_no_outer_iteration(tmp_path):
    learner, _, params = make("proto_net", EPISODE)
    cx.export(tmp_path / "x", learner, params, BATCH)
    exported = cx.load_exported(tmp_path / "x")
    assert exported.state is exported.train_step is None


def test_containers_of_another_kind_are_as_good(tmp_path):
    learner, _, params = make("proto_net", EPISODE)
    cx.export(tmp_path / "x", learner, params, BATCH)
    exported = cx.load_exported(tmp_path / "x")
    expected = exported.adapt(params, *EPISODE[:2])
    reversed_order = OrderedDict(reversed(list(params.items())))
    for other in (freeze(params), reversed_order):
        close(exported.adapt(other, *EPISODE[:2]), expected, 0)
        close(jax.jit(exported.adapt)(other, *EPISODE[:2]), expected, LOGITS)
