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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cxgrad_jax/blob/main/notebooks/your_learner_and_backbone.ipynb)
#
# # Your learner and your backbone
#
# A learner is four pure functions of one episode, and a backbone is any flax classifier. This notebook writes one of
# each, takes a model of flax's newer interface (nnx) too, gives the outer loop a schedule, and uses several devices. It
# takes a few minutes on two CPU cores.

# %%
import importlib.util

if importlib.util.find_spec("cxgrad_jax") is None:
    # %pip install --quiet "cxgrad_jax @ git+https://github.com/OWNER/cxgrad_jax"
    pass

# %%
import os

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402

import cxgrad_jax as cx  # noqa: E402

SMALL = bool(os.environ.get("CXGRAD_NOTEBOOK_SMALL"))  # a quick check that the notebook works
ITERATIONS, EPISODES = (3, 10) if SMALL else (150, 200)
devices = jax.devices()
print(f"jax {jax.__version__} on {len(devices)} device(s): {devices[0].device_kind}")

train = cx.sampler(cx.data.load("glyphs", "train"), way=5, shot=1, query=15, seed=0)
test = cx.sampler(cx.data.load("glyphs", "test"), way=5, shot=1, query=15, seed=0)

# %% [markdown]
# ## A learner in one cell
#
# This is MAML with a learned rate for each inner step. `adapt` is the inner loop, and `init_extra` makes the
# meta-parameters beside the network. `gradient_based` adds `init`, `predict` and `loss`.

# %%
from cxgrad_jax.learners import (  # noqa: E402
    Adapted,
    default_labels,
    gradient_based,
    merge,
    scan_steps,
    sgd,
    split_by_label,
    support_gradients,
)


def maml_with_step_rates(model, *, first_rate=0.01, num_steps=3):
    """theta <- theta - a_s dL(theta; S)/dtheta, where the outer loop learns a_1 ... a_S."""

    def adapt(params, support_images, support_labels):
        theta, frozen, _ = split_by_label(params["model"], default_labels)
        gradients_at = support_gradients(model, frozen, support_images, support_labels, first_order=False)

        def step(theta, rate):
            loss, gradients = gradients_at(theta)
            return sgd(theta, gradients, rate), {"support_loss": loss, "fast": theta}

        theta, trace = scan_steps(step, theta, num_steps, remat=False, per_step=params["rates"])
        return Adapted(merge(theta, frozen), trace)

    def init_extra(key, model_params, images):
        return {"rates": jnp.full(num_steps, first_rate)}

    return gradient_based(model, adapt, init_extra)


# %% [markdown]
# ## A network of your own
#
# Any `flax.linen` module from images `[N, H, W, C]` to logits `[N, way]` will do. `describe` prints which part each
# parameter plays: normalisations are learned by the outer loop only, and everything else adapts.


# %%
class Small(nn.Module):
    num_classes: int = 5

    @nn.compact
    def __call__(self, x):
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


learner = maml_with_step_rates(Small())
params = learner.init(jax.random.key(0), train(0).support_images)
print(cx.learners.describe(learner, params))

# %% [markdown]
# ## A schedule for the outer loop
#
# `fit` takes any Optax optimiser. This one cuts large gradients, warms the rate up and lets it fall along a cosine.

# %%
schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, warmup_steps=max(1, ITERATIONS // 10), decay_steps=ITERATIONS)
optimiser = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))
losses = []
params = cx.fit(
    learner, train, optimiser, iterations=ITERATIONS, callback=lambda iteration, metrics: losses.append(metrics["loss"])
)
print("learned rates of the inner steps:", np.round(params["rates"], 4))
print(cx.evaluate(learner, params, test, episodes=EPISODES))

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3))
axes[0].plot(np.arange(1, ITERATIONS + 1), losses)
axes[0].set(xlabel="iteration", ylabel="query loss in nats")
axes[1].plot(np.arange(ITERATIONS), [schedule(t) for t in range(ITERATIONS)])
axes[1].set(xlabel="iteration", ylabel="learning rate")
fig.tight_layout()

# %% [markdown]
# ## A model of flax nnx
#
# `flax.nnx.bridge.ToLinen` makes a linen module of an nnx class. `metadata_fn=None` keeps the parameters plain arrays.
# Take a normalisation without running averages, such as GroupNorm: the bridge needs the averages of nnx's BatchNorm at
# each call, and our gradient-based learners keep none. The name of a normalisation must contain "norm", for the bridge
# hides the classes of the layers.


# %%
class SmallNNX(nnx.Module):
    def __init__(self, num_classes, *, rngs):
        self.conv_0 = nnx.Conv(3, 16, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm_0 = nnx.GroupNorm(16, num_groups=4, rngs=rngs)
        self.conv_1 = nnx.Conv(16, 32, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm_1 = nnx.GroupNorm(32, num_groups=4, rngs=rngs)
        self.head = nnx.Linear(32 * 7 * 7, num_classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm_0(self.conv_0(x)))
        x = nnx.relu(self.norm_1(self.conv_1(x)))
        return self.head(x.reshape(len(x), -1))


bridged = cx.learners.maml(nnx.bridge.ToLinen(SmallNNX, args=(5,), metadata_fn=None), num_steps=3)
params = cx.fit(bridged, train, optax.adam(1e-3), iterations=ITERATIONS)
print(cx.evaluate(bridged, params, test, episodes=EPISODES))

# %% [markdown]
# ## Several devices
#
# `fit` shares the tasks of an iteration among as many local devices as divide them. Nothing else changes. A machine
# without accelerators can simulate devices, which helps to test a program. The number must be set before JAX starts, so
# this cell starts Python anew. One device and four agree up to rounding.

# %%
import subprocess  # noqa: E402
import sys  # noqa: E402

program = """
import jax, optax
import cxgrad_jax as cx

train = cx.sampler(cx.data.load("glyphs", "train"), query=5)
learner = cx.learners.maml(cx.models.Conv4(num_classes=5, features=4), num_steps=1)
losses = []
cx.fit(learner, train, optax.adam(1e-3), iterations=3, progress=False, callback=lambda t, m: losses.append(m["loss"]))
print(jax.device_count(), "device(s), losses", *(f"{loss:.6f}" for loss in losses))
"""
for number in (1, 4):
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={number}"}
    command, environment = [sys.executable, "-c", program], {**os.environ, **flags}
    print(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout, end="")
