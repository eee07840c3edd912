"""What every layer of an adapted network makes of images, for any learner and model."""

from typing import Any

import flax.linen as nn
import jax

from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._labels import by_path, merge
from cxgrad_jax.learners._model import Params, batch_statistics


def features(learner: MetaLearner, params: Params, task: Any, images: jax.Array) -> dict[str, jax.Array]:
    """The output of each layer as the next one receives it, flattened: ``{layer: [N, D]}`` in the order of their calls.

    Layers are the direct children of the learner's model, such as ``"block_0"`` to ``"block_3"`` and ``"head"`` (whose
    output, the last, is the logits). What the model does between two of them, such as pooling or an activation, counts
    to the one before.

    Args:
      learner: whose ``predict`` applies the model.
      params: meta-parameters.
      task: of ``learner.adapt``, or ``unadapted``.
      images: ``[N, H, W, C]``.
    """
    inputs, outputs = {}, {}

    def record(next_function, arguments, keywords, context):
        output = next_function(*arguments, **keywords)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            (name,) = context.module.path
            inputs[name], outputs[name] = arguments[0], output
        return output

    with nn.intercept_methods(record):
        learner.predict(params, task, images)
    names = list(outputs)
    seen = [*(inputs[following] for following in names[1:]), outputs[names[-1]]]
    return {name: value.reshape(len(value), -1) for name, value in zip(names, seen, strict=True)}


def before_and_after(
    learner: MetaLearner, params: Params, episode: Episode
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """``features`` of the query images before the first inner step and after the last.

    Raises:
      UserError: the learner adapts nothing.
    """
    adapted = learner.adapt(params, episode.support_images, episode.support_labels)
    start = at_own_statistics(learner, adapted, unadapted(adapted), episode.support_images)
    before, after = (features(learner, params, each, episode.query_images) for each in (start, adapted))
    return before, after


def inner_states(task: Any) -> dict[str, Any]:
    """The trace's ``"fast"``: adapting parameters by path before each inner step, ``[steps, ...]``.

    Raises:
      UserError: the learner that made the task tells none, since nothing adapts.
    """
    trace = trace_of(task)
    if "fast" not in trace:
        raise UserError('this learner adapts no parameters: its task has no trace["fast"], which the analysis needs')
    return trace["fast"]


def trace_of(task: Any) -> dict[str, Any]:
    """What the inner loop told of itself, an empty dict if nothing."""
    trace = getattr(task, "trace", None)
    return trace if isinstance(trace, dict) else {}


def with_fast(task: Any, fast: dict[str, jax.Array]) -> Any:
    """``task`` whose adapted parameters are ``fast``, by path.

    Statistics of the support set that it keeps are those of its own parameters, so they are left out
    (``at_own_statistics``).
    """
    return task._replace(model=merge({**by_path(task.model), **fast}), statistics={})


def at_own_statistics(learner: MetaLearner, adapted: Any, state: Any, support_images: jax.Array) -> Any:
    """``state``, a task with other parameters, with the support set's statistics at these.

    Only where ``adapted``, the task that it was made of, keeps any; otherwise query images are normalised by their own.

    Raises:
      UserError: the learner keeps running averages instead, which its inner loop has moved.
    """
    if not adapted.statistics:
        return state
    if learner.spec.get("hyper_parameters", {}).get("query_statistics") == "running":
        raise UserError(
            "query_statistics is 'running', and the inner loop has moved the running averages; ask with 'query' or "
            "'support' what the parameters before its last step are worth"
        )
    return state._replace(statistics=batch_statistics(model_of(learner), state.model, support_images))


def model_of(learner: MetaLearner) -> nn.Module:
    """The model that a learner adapts.

    Raises:
      UserError: the learner does not tell.
    """
    parts = getattr(learner.adapt, "parts", None)
    if parts is None:
        raise UserError("this learner does not tell its model, which the analysis needs; make it with gradient_based")
    return parts[0]


def unadapted(task: Any) -> Any:
    """The task as it was before its first inner step.

    CxGrad's kernels are then scaled already, L2F's parameters attenuated. Of a normalisation that learns a row for
    every step (MAML++), the last stays in place, so that adaptation is all that differs.

    Raises:
      UserError: as ``inner_states``.
    """
    return with_fast(task, {path: states[0] for path, states in inner_states(task).items()})
