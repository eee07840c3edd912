"""However tasks are batched, the numbers are the same, and devices talk once an iteration."""

import os
import re
import subprocess
import sys
from functools import cache

import jax
import numpy as np
import optax
import pytest

import cxgrad_jax as cx
from cxgrad_jax import parallel
from cxgrad_jax.data._store import ImageStore
from cxgrad_jax.fitting import init_state, outer_adam, train_program
from cxgrad_jax.training.sources import device_source, host_source, resident_shapes

SHAPE = cx.EpisodeShape(way=3, shot=1, query=2)
CLASSES, IMAGES = 4, 5
RNG = np.random.default_rng(0)
STORE = ImageStore(
    RNG.integers(0, 256, (CLASSES * IMAGES, 16, 16, 3), np.uint8),
    np.arange(0, CLASSES * IMAGES + 1, IMAGES, dtype=np.int32),
    tuple("abcd"),
)


pytestmark = pytest.mark.usefixtures("double_precision")


def make(factory, devices, chunk, storage="device"):
    """A program of two iterations of four tasks, its source and its first state."""
    learner = factory(cx.models.Conv4(num_classes=SHAPE.way, features=4), num_steps=1)
    mesh, optimiser = parallel.task_mesh(devices), outer_adam(1e-3)
    state = parallel.put(mesh, init_state(learner, optimiser, 0, STORE.images[:1] / 255.0))
    source = (device_source if storage == "device" else host_source)(cx.sampler(STORE, *SHAPE), 4, mesh)
    program = train_program(learner.loss, optimiser, source.draw, mesh, source.spec, 2, chunk, "mean")
    return program, source.arrays([(i, 2) for i in range(0, 8, 2)]), state


@cache
def compiled(factory, devices, chunk, storage):
    block, sources, state = make(factory, devices, chunk, storage)
    return block.lower(state, next(sources)).compile()


@cache
def one_after_the_other(factory):
    """State and metrics after two dispatches, each task alone on one device."""
    return run(*make(factory, 1, 1))


def run(block, sources, state):
    state, first = block(state, next(sources))
    state, second = block(state, next(sources))
    return jax.device_get((state, first, second))


@pytest.mark.slow_except("maml-2-1-device")
@pytest.mark.parametrize(
    ("factory", "devices", "chunk", "storage"),
    [
        (cx.learners.cxgrad, 1, 4, "device"),
        (cx.learners.cxgrad, 1, 2, "host"),
        (cx.learners.cxgrad, 2, 2, "device"),
        (cx.learners.cxgrad, 4, 1, "host"),
        (cx.learners.maml, 2, 1, "device"),
    ],
)
def test_same_numbers_with_one_all_reduce(factory, devices, chunk, storage):
    program = compiled(factory, devices, chunk, storage)
    text = program.as_text()
    assert len(re.findall(r"= \S+ all-reduce(?:-start)?\(", text)) == 1  # in the body of the loop over iterations
    assert "all-gather" not in text and "all-to-all" not in text
    outcome = run(program, *make(factory, devices, chunk, storage)[1:])
    for ours, theirs in zip(jax.tree.leaves(outcome), jax.tree.leaves(one_after_the_other(factory)), strict=True):
        # Adam divides by the gradient's own size, which magnifies the rounding of the smallest gradients.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * max(np.max(np.abs(theirs)), 1e-12))


def test_no_retracing_and_no_transfer_after_the_first_dispatch():
    block, sources, state = make(lambda model, num_steps: cx.learners.proto_net(model), 2, 2)
    state, _ = block(state, next(sources))
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state, metrics = block(state, next(sources))
    assert block._cache_size() == 1
    assert np.isfinite(jax.device_get(metrics["loss"])).all()


def test_more_devices_than_there_are():
    with pytest.raises(cx.UserError, match="num_devices is 99"):
        parallel.task_mesh(99)


def test_no_copy_of_the_image_store_is_in_the_program():
    """It enters as one row an image, and every operation that gives as much is a name for the same memory."""
    rows = next(make(cx.learners.maml, 2, 1)[1])[0]
    assert rows.shape == (CLASSES * IMAGES, 16 * 16 * 3) and rows.format.layout.major_to_minor == (0, 1)
    text = compiled(cx.learners.maml, 2, 1, "device").as_text()
    giving = re.findall(rf"= u8\[{rows.shape[0]},{rows.shape[1]}\]\S* ([\w-]+)\(", text)
    assert giving and set(giving) <= {"parameter", "get-tuple-element", "bitcast"}


def test_the_shapes_that_are_compiled_ahead_are_those_of_the_store():
    mesh = parallel.task_mesh(2)
    arrays = next(device_source(cx.sampler(STORE, *SHAPE), 4, mesh).arrays([(0, 1)]))
    for real, shape in zip(arrays, resident_shapes(STORE, mesh), strict=True):
        assert (real.shape, real.dtype, real.sharding) == (shape.shape, shape.dtype, shape.sharding)


LONG_DISPATCH = """
import jax, numpy as np, optax
import cxgrad_jax as cx
from cxgrad_jax import fitting, parallel
from cxgrad_jax.training.sources import device_source

images = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), dtype=np.uint8)
sampler = cx.sampler(cx.data.from_arrays(images, np.repeat(np.arange(20), 20)), 5, 1)
learner, optimiser, mesh = cx.learners.cxgrad(cx.models.Conv4(5)), optax.adam(1e-3), parallel.task_mesh()
source, losses = device_source(sampler, 4, mesh), []
for length in (10, 1):
    program = fitting.train_program(learner.loss, optimiser, source.draw, mesh, source.spec, length)
    state = parallel.put(mesh, fitting.init_state(learner, optimiser, 0, images[:2]))
    found = []
    for arrays in source.arrays((first, length) for first in range(0, 10, length)):
        state, metrics = program(state, arrays)
        found += jax.device_get(metrics["loss"]).tolist()
    losses.append(found)
print(mesh.size, losses[0] == losses[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_dispatch_of_seconds_is_right_on_each_number_of_devices(devices):
    """With Eigen's convolutions on two devices, XLA goes wrong after about a second of a dispatch."""
    given = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    given |= {"JAX_PLATFORMS": "cpu"} | ({"JAX_NUM_CPU_DEVICES": "2"} if devices == 2 else {})
    done = subprocess.run([sys.executable, "-c", LONG_DISPATCH], env=given, capture_output=True, text=True)
    assert done.stdout.split() == [str(devices), "True"], done.stderr[-2000:]


@pytest.mark.parametrize("devices", [1, 4])
def test_programs_run_inside_another_mesh(devices):
    """A user's jax.set_mesh does not change what training, testing and drawing give."""
    store = cx.data.from_arrays(np.arange(18 * 256, dtype=np.float32).reshape(18, 16, 16, 1) / 5000, np.arange(18) // 6)
    sampler = cx.sampler(store, way=2, shot=1, query=2)
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=2, features=2))

    def work():
        params = cx.fit(learner, sampler, optax.sgd(0.1), iterations=1, tasks=2, progress=False)
        return (
            cx.evaluate(learner, params, sampler, episodes=4).accuracies,
            sampler.batch([0, 1]).support_images,
            params,
        )

    plain = work()
    with jax.set_mesh(jax.make_mesh((devices,), ("x",), devices=jax.devices()[:devices])):
        inside = work()
    jax.tree.map(np.testing.assert_array_equal, plain, inside)
