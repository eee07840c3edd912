"""The images of a run: ``data.json`` in its folder describes them, and others of the same name are refused.

A data set may have been prepared again from another folder, or ``data.dir`` may name another place. Accuracies before
and after would then stand beside each other as if they were of the same episodes.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cxgrad_jax.data import ImageStore
from cxgrad_jax.errors import UserError, reason

DATA_FILE = "data.json"
SAMPLE = 100  # classes whose first image is looked at
TOLERANCE = 2.0  # of 255. Decoders of JPEG differ by less, and other images by more


def description(store: ImageStore) -> dict[str, Any]:
    """What is compared of a store: its classes and their sizes, the shape of an image, and the look of some images.

    Returns:
      ``"classes"``, a SHA-256 of names, sizes and shape, and ``"brightness"``, the means of the first image of up to
      ``SAMPLE`` classes, 0 to 255.
    """
    sizes = np.diff(store.offsets).tolist()
    classes = json.dumps([list(store.class_names), sizes, list(store.images.shape[1:]), str(store.images.dtype)])
    chosen = np.linspace(0, store.num_classes - 1, min(SAMPLE, store.num_classes)).astype(int)
    scale = 1 if store.images.dtype == np.uint8 else 255
    brightness = [round(scale * float(np.mean(store.images[store.offsets[c]])), 2) for c in chosen]
    return {"classes": hashlib.sha256(classes.encode()).hexdigest(), "brightness": brightness}


def check_same_images(stores: Iterable[ImageStore], workdir: Path) -> dict[str, Any]:
    """Refuses images that are not those of the run in ``workdir``.

    Args:
      stores: the images to be used.
      workdir: the folder of the run, which may be new.

    Returns:
      The content for ``data.json``: the descriptions of the run's images and of these, by data set and split, such as
      ``"glyphs/test"``.

    Raises:
      UserError: the run used other images of the same name and split, or its ``data.json`` is damaged.
    """
    path = workdir / DATA_FILE
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for store in stores:
            name, ours = f"{store.name}/{store.split}", description(store)
            theirs = known.setdefault(name, ours)
            if not are_alike(ours, theirs):
                raise UserError(
                    f"{store.name}, split {store.split}, has other images than when {workdir} used it; prepare them "
                    "under a name of their own, then test with --config.evaluation.data=NAME, or train in another "
                    "--workdir"
                )
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged ({reason(error)}); remove it, and the images at hand count as the run's"
        ) from None
    return known


def are_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two descriptions are of the same images, up to the decoder of JPEG."""
    if ours["classes"] != theirs["classes"]:
        return False
    return bool((np.abs(np.subtract(ours["brightness"], theirs["brightness"])) <= TOLERANCE).all())
