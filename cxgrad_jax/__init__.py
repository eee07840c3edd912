"""CxGrad and its relatives: few-shot meta-learning in JAX.

In short::

    import optax
    import cxgrad_jax as cx

    train, test = (cx.sampler(cx.data.load("glyphs", split)) for split in ("train", "test"))
    learner = cx.learners.cxgrad(cx.models.Conv4(num_classes=5))
    params = cx.fit(learner, train, optax.adam(1e-3), iterations=500)
    result = cx.evaluate(learner, params, test)

Every function of a learner is pure and takes one episode; ``mean_loss`` batches them.
"""

__version__ = "0.2.0"  # the metadata of the package take it from here

from typing import TYPE_CHECKING, Any

from cxgrad_jax import analysis, data, interop, learners, models, photos, pretraining
from cxgrad_jax.batching import mean_loss
from cxgrad_jax.episodes import Episode, EpisodeShape, Sampler, sampler
from cxgrad_jax.errors import UserError
from cxgrad_jax.evaluation import Evaluation, evaluate
from cxgrad_jax.exporting import ExportedLearner, export, load_exported
from cxgrad_jax.fitting import fit
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.questions import Permutations, evaluate_by_part, evaluate_by_step, evaluate_permutations
from cxgrad_jax.saving import load, save

if TYPE_CHECKING:
    from cxgrad_jax.training.runs import Run, load_run

# The trainer needs more packages than the library, so these two are loaded when they are asked for.
_TRAINING = ("Run", "load_run")

__all__ = [
    "Episode", "EpisodeShape", "Evaluation", "ExportedLearner", "MetaLearner", "Permutations", "Run", "Sampler",
    "UserError", "__version__", "analysis", "data", "evaluate", "evaluate_by_part", "evaluate_by_step",
    "evaluate_permutations", "export", "fit", "interop", "learners", "load", "load_exported", "load_run", "mean_loss",
    "models", "photos", "pretraining", "sampler", "save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _TRAINING:
        from cxgrad_jax.training import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
