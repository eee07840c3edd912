"""Features of photos that were never taken."""

import numpy as np


def clusters(number, classes=3, width=20, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    labels = np.arange(number) % classes
    features = centres[labels] + spread * rng.normal(size=(number, width)) * np.sqrt(width) / 2
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32), labels


def unit(x):
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


def photos_with_twins(classes=3, scenes=4, twins=3, seed=0):
    """Features of ``twins`` photos each of ``scenes`` scenes of every class, all scenes alike unlike."""
    rng = np.random.default_rng(seed)
    scenes_ = rng.normal(size=(classes * scenes, 64))
    features = unit(np.repeat(scenes_, twins, axis=0) + 0.1 * rng.normal(size=(classes * scenes * twins, 64)))
    return features, np.repeat(np.arange(classes), scenes * twins), np.repeat(np.arange(classes * scenes), twins)
