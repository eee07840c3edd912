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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cxgrad_jax/blob/main/notebooks/inside_cxgrad.ipynb)
#
# # Inside CxGrad
#
# CxGrad sets the norm of every convolution kernel to a factor γ before each inner step. A small network generates γ
# from a context vector ν. This notebook trains CxGrad and MAML for a short time and looks inside: at γ over training,
# at the inner gradients of each layer, at what adaptation changes, and at what the context does. It takes a few minutes
# on two CPU cores.

# %%
import importlib.util

if importlib.util.find_spec("cxgrad_jax") is None:
    # %pip install --quiet "cxgrad_jax @ git+https://github.com/OWNER/cxgrad_jax"
    pass

# %%
import os
from functools import partial

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import cxgrad_jax as cx
from cxgrad_jax import runtime

SMALL = bool(os.environ.get("CXGRAD_NOTEBOOK_SMALL"))  # a quick check that the notebook works
print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")

# %% [markdown]
# ## Two learners, trained on the same episodes
#
# `cx.fit` would do for training. A loop of our own keeps the parameters along the way. `cx.mean_loss` is the loss of
# the outer loop, and Optax makes the step.

# %%
train = cx.sampler(cx.data.load("glyphs", "train"), way=5, shot=1, query=15, seed=0)
test = cx.sampler(cx.data.load("glyphs", "test"), way=5, shot=1, query=15, seed=0)
model = cx.models.Conv4(num_classes=5, features=16)
learners = {name: getattr(cx.learners, name)(model, inner_lr=0.01, num_steps=5) for name in ("cxgrad", "maml")}
ITERATIONS, EVERY = (4, 2) if SMALL else (200, 20)


def trained(learner):
    """Parameters and metrics over training: [(iterations done, params)], [metrics of each iteration]."""
    optimiser, gradients_of = optax.adam(1e-3), jax.value_and_grad(cx.mean_loss(learner), has_aux=True)

    @partial(jax.jit, compiler_options=runtime.compiler_options(1))
    def iterate(params, state, episodes):
        (loss, metrics), gradients = gradients_of(params, episodes)
        updates, state = optimiser.update(gradients, state)
        return optax.apply_updates(params, updates), state, {"loss": loss, **metrics}

    params = learner.init(jax.random.key(0), train(0).support_images)
    state, kept, record = optimiser.init(params), [(0, params)], []
    for t in range(ITERATIONS):
        params, state, metrics = iterate(params, state, train.batch(range(4 * t, 4 * t + 4)))
        record.append(jax.device_get(metrics))
        if (t + 1) % EVERY == 0:
            kept.append((t + 1, params))
    return kept, record


history = {name: trained(learner) for name, learner in learners.items()}
for name, learner in learners.items():
    print(f"{name:7}", cx.evaluate(learner, history[name][0][-1][1], test, episodes=10 if SMALL else 100))

# %% [markdown]
# ## γ over training
#
# `cx.analysis.conditioning` tells γ and the length of ν in one episode. Here is the mean of γ over inner steps and over
# some test episodes, after every few iterations. A kernel of norm γ has a gradient proportional to 1/γ. Its effective
# learning rate is proportional to 1/γ². Where γ falls, the layer learns faster within a task.

# %%
cxgrad, episodes = learners["cxgrad"], test.batch(range(2 if SMALL else 20))


def each_episode(function):
    """The compiled function (params, episodes) of a function (params, episode); the episodes follow one another."""
    return jax.jit(lambda params, episodes: jax.lax.map(lambda episode: function(params, episode), episodes))


conditioning = each_episode(partial(cx.analysis.conditioning, cxgrad))
iterations, snapshots = zip(*history["cxgrad"][0], strict=True)
found = [conditioning(params, episodes) for params in snapshots]
gamma = np.array([each.gamma for each in found])  # [snapshots, episodes, steps, layers]
layers = [f"block {i}" for i in range(gamma.shape[-1])]
fig, axes = plt.subplots(1, 2, figsize=(8, 3))
for layer, name in enumerate(layers):
    axes[0].plot(iterations, gamma[..., layer].mean(axis=(1, 2)), marker=".", label=name)
    axes[1].plot(iterations, 0.01 / gamma[..., layer].mean(axis=(1, 2)) ** 2, marker=".", label=name)
axes[0].set(xlabel="iteration", ylabel="γ")
axes[1].set(xlabel="iteration", ylabel="effective rate, α / γ²")
axes[1].legend()
fig.tight_layout()

# %% [markdown]
# ## Inner gradients by layer
#
# Training records the norm of each kernel's support gradient, as a mean over inner steps and tasks. The paper's Figure
# 2 shows them. In CxGrad the gradients of the body are scaled by 1/γ.

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
for ax, (name, (_, record)) in zip(axes, history.items(), strict=True):
    for key in (key for key in record[0] if key.startswith("inner_gradient_norm/")):
        layer = key.removeprefix("inner_gradient_norm/").removesuffix("/conv").replace("_", " ")
        ax.plot(np.arange(1, ITERATIONS + 1), [metrics[key] for metrics in record], label=layer)
    ax.set(title=name, xlabel="iteration", yscale="log")
axes[0].set_ylabel("norm of the inner gradient")
axes[1].legend(fontsize="small")
fig.tight_layout()

# %% [markdown]
# ## What adaptation changes
#
# CKA compares the features of the query images before and after adaptation. It is 1 where they are alike, up to
# rotation and scale, and smaller where adaptation changed the representation (the paper's Figure 3).

# %%
fig, ax = plt.subplots(figsize=(6, 3))
for name, learner in learners.items():
    similarity = each_episode(partial(cx.analysis.cka, learner))(history[name][0][-1][1], episodes)
    values = np.array([*similarity.values()])
    ax.errorbar(range(len(values)), values.mean(axis=1), values.std(axis=1), marker="o", capsize=3, label=name)
ax.set_xticks(range(len(values)), [layer.replace("_", " ") for layer in similarity])
ax.set(ylabel="CKA, before and after", ylim=(0, 1.05))
ax.legend()
fig.tight_layout()

# %% [markdown]
# ## What the context does, and what it does not
#
# A normalisation follows each convolution, so the loss does not depend on γ, except through the small epsilon in the
# normalisation. The gradient that ν follows is therefore almost zero. Two measurements show it: how much γ differs
# between tasks, and the accuracy with factors that are not the task's own.

# %%
last = found[-1]
print(f"length of ν after its first step: {np.mean(last.context_norm[:, 0]):.1e}")
print(f"γ: spread between tasks / mean = {np.max(gamma[-1].std(axis=0) / gamma[-1].mean(axis=0)):.1e} at most")


# %%
def accuracy_with(params, episode, factors):
    """Accuracy on the query set where the inner loop uses the given factors [steps, layers]."""
    adapted = cx.analysis.adapt_with_factors(model, params, episode.support_images, episode.support_labels, factors)
    return cx.learners.accuracy(cxgrad.predict(params, adapted, episode.query_images), episode.query_labels)


many = test.batch(range(4 if SMALL else 100))
of_many = conditioning(snapshots[-1], many)
own, at_zero = np.array(of_many.gamma), np.array(of_many.gamma_at_zero)
choices = {
    "the task's own": own,
    "another task's": np.roll(own, 1, axis=0),
    "those of ν = 0": np.repeat(at_zero[:, None], own.shape[1], axis=1),
    "all equal": np.full_like(own, own.mean()),
}
run = jax.jit(lambda params, inputs: jax.lax.map(lambda each: accuracy_with(params, *each), inputs))
for name, factors in choices.items():
    accuracies = np.array(run(snapshots[-1], (many, factors)))
    interval = 1.96 * accuracies.std() / np.sqrt(len(accuracies))
    print(f"factors: {name:15} accuracy {accuracies.mean():.4f} ± {interval:.4f}")

# %% [markdown]
# The first three lines agree: the factors hardly depend on the task. They are a learned inner learning rate for each
# layer. The last line tells what the differences between layers are worth after so short a training. The
# [explanation](https://github.com/OWNER/cxgrad_jax/blob/main/docs/explanation/cxgrad.md) has the argument, and
# `docs/cifar_fs.md` the same measurements on CIFAR-FS.
