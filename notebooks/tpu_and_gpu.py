# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cxgrad_jax/blob/main/notebooks/tpu_and_gpu.ipynb)
#
# # TPU and GPU
#
# What matters on an accelerator: training images that live on the device, several iterations in one call, and memory.
# This notebook shows each on whatever device it finds, and then trains by the command line. It takes a few minutes on
# two CPU cores.
#
# **What was measured, and what was not.** The numbers below are of the device that the next cell names. Other numbers
# of this project are of CPUs and of an H100. Nothing has been timed on a TPU yet. Run the notebook on Colab's GPU or
# TPU to see yours.

# %%
import importlib.util

if importlib.util.find_spec("cxgrad_jax") is None:
    # %pip install --quiet "cxgrad_jax @ git+https://github.com/OWNER/cxgrad_jax"
    pass

# %%
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cxgrad_jax as cx
from cxgrad_jax import main, runtime
from cxgrad_jax.episodes import draw_on_device, largest_class

SMALL = bool(os.environ.get("CXGRAD_NOTEBOOK_SMALL"))  # a quick check that the notebook works
device = jax.devices()[0]
print(f"jax {jax.__version__} on {len(jax.devices())} device(s): {device.device_kind}")
memory = device.memory_stats() or {}
print("memory:", f"{memory['bytes_limit'] / 2**30:.1f} GiB" if "bytes_limit" in memory else "this device does not tell")

# %% [markdown]
# ## Episodes from the device, several iterations a dispatch
#
# An accelerator waits while the host draws images, copies them, and starts each call. Both costs can be avoided.
# `draw_on_device` draws the same episodes inside the compiled program, from images that were copied once. `lax.scan`
# then runs many iterations in one call, a *dispatch*. A small learner shows the difference best. On a CPU there is
# little to win, since host and device are the same.

# %%
store = cx.data.load("glyphs", "train")
train = cx.sampler(store, way=5, shot=1, query=15, seed=0)
small = cx.learners.proto_net(cx.models.Conv4(num_classes=5, features=8))
optimiser, gradients_of = optax.adam(1e-3), jax.value_and_grad(cx.mean_loss(small), has_aux=True)
images, offsets, largest = jnp.asarray(store.images), jnp.asarray(store.offsets), largest_class(store)
options = runtime.compiler_options(1)
print(f"training images: {store.images.nbytes / 2**20:.0f} MiB")


def iterate(state, episodes):
    params, opt_state = state
    (loss, _), gradients = gradients_of(params, episodes)
    updates, opt_state = optimiser.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), opt_state), loss


def dispatch(length):
    """The compiled call (state, images, first iteration) of several iterations with episodes from the device."""

    def drawn(images, t):
        return jax.vmap(lambda i: draw_on_device(images, offsets, largest, train.shape, train.seed, "train", i))(
            4 * t + jnp.arange(4)
        )

    def program(state, images, first):
        return jax.lax.scan(lambda s, t: iterate(s, drawn(images, t)), state, first + jnp.arange(length))

    return jax.jit(program, compiler_options=options)


def time_of(call, length, iterations=10 if SMALL else 200):
    """Milliseconds an iteration after one call that compiles, and the last loss."""
    params = small.init(jax.random.key(0), store.images[:2])
    state, _ = call((params, optimiser.init(params)), 0)
    state, loss = jax.block_until_ready(call(state, length))
    start = time.perf_counter()
    for first in range(2 * length, 2 * length + iterations, length):
        state, loss = call(state, first)
    loss = jax.block_until_ready(loss)
    return 1000 * (time.perf_counter() - start) / iterations, float(jnp.ravel(loss)[-1])


from_host = jax.jit(iterate, compiler_options=options)
milliseconds, _ = time_of(lambda state, t: from_host(state, train.batch(range(4 * t, 4 * t + 4))), 1)
print(f"episodes from the host,    1 iteration(s) a dispatch: {milliseconds:6.1f} ms an iteration")
for length in (1, 10):
    call = dispatch(length)
    milliseconds, _ = time_of(lambda state, t, call=call: call(state, images, t), length)
    print(f"episodes from the device, {length:2} iteration(s) a dispatch: {milliseconds:6.1f} ms an iteration")

# %% [markdown]
# The command line does the same by itself. `--config.data.storage=auto` keeps the images on an accelerator where they
# take at most half of its memory. `--config.train.iterations_per_dispatch=0` means 5 on a CPU and 50 on an accelerator.
#
# ## Memory
#
# The second derivative of the inner loop takes the memory: the activations of every inner step, of every task that is
# worked on at once. The compiler says how much before anything runs. `remat` computes activations again instead of
# keeping them. `first_order` leaves the second derivative out, which is another algorithm. Here is one task of CxGrad
# at CIFAR-FS's size, for this device.

# %%
model = cx.models.Conv4(num_classes=5, features=8 if SMALL else 48)
shapes = cx.Episode(
    jax.ShapeDtypeStruct((1, 5, 32, 32, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 5), jnp.int32),
    jax.ShapeDtypeStruct((1, 75, 32, 32, 3), jnp.uint8), jax.ShapeDtypeStruct((1, 75), jnp.int32),
)  # fmt: skip
for changes in ({}, {"remat": True}, {"first_order": True}):
    learner = cx.learners.cxgrad(model, num_steps=5, **changes)
    params = jax.eval_shape(learner.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    gradients = jax.jit(jax.value_and_grad(cx.mean_loss(learner), has_aux=True), compiler_options=options)
    plan = gradients.lower(params, shapes).compile().memory_analysis()
    print(f"{str(changes or 'second order'):22} {plan.temp_size_in_bytes / 2**20:7.1f} MiB" if plan else "not told")

# %% [markdown]
# On a CPU `remat` saves nothing for one small task, as the second line shows. On an accelerator all tasks of an
# iteration are vectorised, so that four tasks take about four times as much. `--config.parallel.tasks_per_chunk=1`
# works on one after the other.
#
# ## A full training
#
# `main.run` is the command line in a notebook. With `FULL = True` the cell prepares CIFAR-FS and trains for 50,000
# iterations. That takes five hours on two CPU cores. On an H100 an iteration takes 4.7 ms, which is four minutes in
# all, and some for compiling. Otherwise a short run on glyphs takes its place. Run the cell again to resume where it
# stopped.

# %%
FULL = False
if FULL:
    cx.data.prepare("cifar_fs", download=True)
    arguments = ["--workdir=runs/cifar_fs_1shot", "--config=cifar_fs_1shot"]
else:
    length = 4 if SMALL else 60
    arguments = [
        "--workdir=runs/glyphs",
        "--config.data.storage=device",
        f"--config.train.iterations={length}",
        f"--config.train.epoch_iterations={length // 2}",
        f"--config.train.iterations_per_dispatch={length // 2}",
        f"--config.model.features={4 if SMALL else 16}",
        "--config.evaluation.val_episodes=20",
        "--config.evaluation.episodes=100",
    ]
print("python -m cxgrad_jax.main", *arguments)
status = main.run(arguments)
assert status == 0, f"exit status {status}"

# %%
results = json.loads(Path(arguments[0].removeprefix("--workdir="), "results.json").read_text())
accuracy, interval = results["test_accuracy"], results["test_ci95_tasks"]
print(f"accuracy {accuracy:.4f} ± {interval:.4f} over {results['num_tasks']} episodes")

# %% [markdown]
# On several hosts, start the same command on each
# ([how to](https://github.com/OWNER/cxgrad_jax/blob/main/docs/how_to/many_hosts.md)).
