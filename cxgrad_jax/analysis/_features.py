"""The outputs of every layer of an adapted network, for any learner and model."""

from typing import Any

import flax.linen as nn
import jax

from cxgrad_jax.arguments import check_episode, check_learner
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._checked import model_and_labels
from cxgrad_jax.learners._labels import by_path, merge
from cxgrad_jax.learners._model import Params, batch_statistics


def features(learner: MetaLearner, params: Params, adapted: Any, images: jax.Array) -> dict[str, jax.Array]:
    """The output of each layer as the next one receives it, flattened: ``{layer: [N, D]}`` in the order of the calls.

    Layers are the direct children of the learner's model, such as ``"block_0"`` to ``"block_3"`` and ``"head"``, whose
    output is the logits. If the model does something between two layers, such as pooling or an activation, it belongs
    to the first of the two.

    Args:
      learner: the learner, whose ``predict`` applies the model.
      params: the meta-parameters.
      adapted: the result of ``learner.adapt``, or of ``unadapted``.
      images: ``[N, H, W, C]``.
    """
    inputs, outputs = {}, {}

    def record(next_function, arguments, keywords, context):
        output = next_function(*arguments, **keywords)
        if context.method_name == "__call__" and len(context.module.path) == 1:
            (name,) = context.module.path
            inputs[name] = arguments[0] if arguments else next(iter(keywords.values()))
            outputs[name] = output
        return output

    with nn.intercept_methods(record):
        learner.predict(params, adapted, images)
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
    adapted = adapted_to(learner, params, episode)
    start = at_own_statistics(learner, adapted, unadapted(adapted), episode.support_images)
    before, after = (features(learner, params, each, episode.query_images) for each in (start, adapted))
    return before, after


def adapted_to(learner: MetaLearner, params: Params, episode: Episode) -> Any:
    """What ``learner.adapt`` returns for the support set of ``episode``.

    Raises:
      UserError: ``learner`` or ``episode`` has the wrong type, or the learner refuses the episode.
    """
    check_learner(learner)
    check_episode(episode)
    return learner.adapt(params, episode.support_images, episode.support_labels)


def inner_states(adapted: Any) -> dict[str, Any]:
    """The trace's ``"fast"``: adapting parameters by path before each inner step, ``[steps, ...]``.

    Raises:
      UserError: the trace has none, because ``adapt`` of this learner adapts no parameters.
    """
    trace = trace_of(adapted)
    if "fast" not in trace:
        raise UserError(
            'this learner adapts no parameters or does not return them: adapt returns no trace["fast"], which the '
            'analysis needs; MeTAL returns them with query_statistics="support"'
        )
    return trace["fast"]


def trace_of(adapted: Any) -> dict[str, Any]:
    """The trace of the inner loop, an empty dict if there is none."""
    trace = getattr(adapted, "trace", None)
    return trace if isinstance(trace, dict) else {}


def with_fast(adapted: Any, fast: dict[str, jax.Array]) -> Any:
    """Replaces the adapted parameters by ``fast``, a dict by path.

    Statistics of the support set belong to the parameters that were replaced, so they are left out
    (``at_own_statistics`` adds them).
    """
    return adapted._replace(model=merge({**by_path(adapted.model), **fast}), statistics={})


def at_own_statistics(learner: MetaLearner, adapted: Any, state: Any, support_images: jax.Array) -> Any:
    """Adds to ``state`` the statistics of the support set at the parameters of ``state``.

    ``state`` was made from ``adapted`` by ``with_fast``. If ``adapted`` keeps no statistics, neither does the result,
    and query images are normalised by their own.

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
      UserError: the learner does not know its model.
    """
    model, _ = model_and_labels(learner)
    if model is None:
        raise UserError("this learner does not report its model, which the analysis needs; make it with gradient_based")
    return model


def unadapted(adapted: Any) -> Any:
    """The result of ``adapt`` as it was before the first inner step.

    By then CxGrad's kernels are scaled, and L2F's parameters are attenuated. If a normalisation learns a row for every
    step (MAML++), the last row stays in place, so that the two differ only by adaptation.

    Raises:
      UserError: the learner adapts no parameters.
    """
    return with_fast(adapted, {path: states[0] for path, states in inner_states(adapted).items()})
