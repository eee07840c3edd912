"""A small episode on which gradients are neither zero nor chaotic, and small learners."""

import jax
import numpy as np

import cxgrad_jax as cx

WAY, SIZE, FEATURES = 3, 16, 4


def make_episode(seed=0, shot=2, query=2):
    """Smooth images with an offset a class, so that gradients are neither zero nor chaotic."""
    rng = np.random.default_rng(seed)
    classes = rng.uniform(size=(WAY, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    images = [np.clip(classes[:, None] + 0.1 * rng.normal(size=(WAY, n, SIZE, SIZE, 3)), 0, 1) for n in (shot, query)]
    support, query_images = (x.reshape(-1, SIZE, SIZE, 3) for x in images)
    labels = np.arange(WAY, dtype=np.int32)
    return cx.Episode(support, labels.repeat(shot), query_images, labels.repeat(query))


PROGRAMS: dict[tuple[str, str], jax.stages.Compiled] = {}


def first_params(learner, images):
    """``learner.init(jax.random.key(0), images)``, compiled once for all learners whose program has the same text.

    The text alone would not do: it leaves out the images, whose values an initialisation does not need.
    """
    lowered = jax.jit(learner.init).lower(jax.random.key(0), images)
    program = lowered.as_text(), str(lowered.in_avals)
    if program not in PROGRAMS:
        PROGRAMS[program] = lowered.compile()
    return PROGRAMS[program](jax.random.key(0), images)


def jitted(learner):
    """``learner`` with its four functions compiled."""
    functions = ("init", "adapt", "predict", "loss")
    return learner._replace(**{name: jax.jit(getattr(learner, name)) for name in functions})


def make(name, episode, **hyper_parameters):
    """The learner called ``name`` on a small Conv-4, its model, and meta-parameters."""
    network = model()
    if name in ("cxgrad", "cxgrad_explicit"):
        hyper_parameters.setdefault("context_dim", 6)
    learner = getattr(cx.learners, name)(network, **hyper_parameters)
    return learner, network, first_params(learner, episode.support_images)


def model(**changes):
    """A small Conv-4."""
    return cx.models.Conv4(num_classes=WAY, features=FEATURES, **changes)


def meta_gradient(learner, params, episode):
    """The outer gradient of one episode."""
    return jax.jit(jax.grad(lambda p: learner.loss(p, episode)[0]))(params)


def relative(a, b):
    """The largest deviation of a tree from another, relative to each tensor's maximum in the other."""
    return max(
        jax.tree.leaves(
            jax.tree.map(lambda x, y: np.max(np.abs(x - y)) / max(np.max(np.abs(y)), np.finfo(np.float32).tiny), a, b)
        )
    )
