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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cxgrad_jax/blob/main/notebooks/first_run.ipynb)
#
# # A first run
#
# This notebook trains a few-shot learner and measures it. A few-shot learner sees one labelled image of each of five
# classes that it has never met, and then has to name further images of these classes. It takes a few minutes on two CPU
# cores, and less on a GPU or TPU.

# %%
import importlib.util

if importlib.util.find_spec("cxgrad_jax") is None:
    # %pip install --quiet "cxgrad_jax @ git+https://github.com/OWNER/cxgrad_jax"
    pass

# %%
import os

import jax  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import cxgrad_jax as cx  # noqa: E402

SMALL = bool(os.environ.get("CXGRAD_NOTEBOOK_SMALL"))  # a quick check that the notebook works
devices = jax.devices()
print(f"jax {jax.__version__} on {len(devices)} device(s): {devices[0].device_kind}")

# %% [markdown]
# ## Data
#
# Glyphs are characters of several scripts, drawn with the fonts of matplotlib. They need no download. Training,
# validation
# and test have different characters. A *sampler* draws episodes: episode `i` is always the same.

# %%
train = cx.sampler(cx.data.load("glyphs", "train"), way=5, shot=1, query=15, seed=0)
test = cx.sampler(cx.data.load("glyphs", "test"), way=5, shot=1, query=15, seed=0)
print(train)
print(test)

# %%
episode = test(0)
queries = episode.query_images.reshape(5, 15, *episode.query_images.shape[1:])
fig, axes = plt.subplots(5, 7, figsize=(6, 4.4))
for row, (support, of_class) in enumerate(zip(episode.support_images, queries, strict=True)):
    for column, image in enumerate([support, *of_class[:6]]):
        axes[row, column].imshow(image)
        axes[row, column].axis("off")
axes[0, 0].set_title("support")
axes[0, 1].set_title("query")
fig.tight_layout()

# %% [markdown]
# ## Learner
#
# A learner is four pure functions: `init`, `adapt`, `predict` and `loss`. `cxgrad` adapts a network by five gradient
# steps
# on the support set. Before each step it sets the norm of every convolution kernel, and with it the size of the step.

# %%
model = cx.models.Conv4(num_classes=5, features=32)
learner = cx.learners.cxgrad(model, inner_lr=0.01, num_steps=5)
print(learner)

# %% [markdown]
# ## Training
#
# `fit` minimises the query loss after adaptation. An iteration uses four episodes. The first iteration compiles the
# program.

# %%
iterations = 20 if SMALL else 300
accuracies = []
params = cx.fit(
    learner,
    train,
    optax.adam(1e-3),
    iterations=iterations,
    tasks=4,
    callback=lambda iteration, metrics: accuracies.append(metrics["accuracy"]),
)

# %%
window = max(1, iterations // 20)
smooth = np.convolve(accuracies, np.ones(window) / window, "valid")
fig, ax = plt.subplots(figsize=(6, 3))
ax.plot(np.arange(1, iterations + 1), accuracies, color="0.8", label="one iteration")
ax.plot(np.arange(window, iterations + 1), smooth, label=f"mean of {window}")
ax.axhline(0.2, color="0.4", linestyle=":", label="chance")
ax.set(xlabel="iteration", ylabel="query accuracy in training", ylim=(0, 1))
ax.legend()
fig.tight_layout()

# %% [markdown]
# ## Accuracy
#
# The test episodes are made of classes that training never saw. The interval is over episodes. All query images of an
# episode are normalised together, as in the official code.

# %%
result = cx.evaluate(learner, params, test, episodes=40 if SMALL else 600)
print(result)

# %% [markdown]
# ## One episode before and after adaptation
#
# `adapt` returns the adapted network. `cx.analysis.unadapted` gives the network before its first step. Rows are the
# true
# classes, columns the predicted ones.

# %%
adapted = jax.jit(learner.adapt)(params, episode.support_images, episode.support_labels)
fig, axes = plt.subplots(1, 2, figsize=(6, 3))
for ax, (title, network) in zip(
    axes, {"before": cx.analysis.unadapted(adapted), "after": adapted}.items(), strict=True
):
    logits = learner.predict(params, network, episode.query_images)
    predicted = np.argmax(logits, axis=-1)
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (episode.query_labels, predicted), 1)
    ax.imshow(confusion, cmap="Blues", vmin=0, vmax=15)
    ax.set_title(f"{title}: {np.mean(predicted == episode.query_labels):.0%} right")
    ax.set(xlabel="predicted class", ylabel="true class")
    for (i, j), number in np.ndenumerate(confusion):
        ax.text(j, i, number, ha="center", va="center", color="white" if number > 8 else "black")
fig.tight_layout()

# %% [markdown]
# ## Keep it
#
# One file holds the arrays and a readable description of the learner. It comes back without any code of its own.

# %%
cx.save("glyphs.safetensors", learner, params)
again, read = cx.load("glyphs.safetensors")
print(again)
print(cx.evaluate(again, read, test, episodes=40))
