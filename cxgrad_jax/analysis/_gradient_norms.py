"""Norms of the inner loop's gradients, layer by layer (Figure 2 of the CxGrad paper).

Training records their means over steps and tasks at each iteration (``train_inner_gradient_norm/LAYER`` in
``metrics.jsonl``), so that Figure 2 needs no second run. CxGrad's are those of the gradients with respect to the scaled
kernels, which the updates use. The head's is that of its kernel alone.
"""

import jax

from cxgrad_jax.analysis._features import adapted_to, trace_of
from cxgrad_jax.episodes import Episode
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._model import Params

PREFIX = "gradient_norm/"


def gradient_norms(learner: MetaLearner, params: Params, episode: Episode) -> dict[str, jax.Array]:
    """The l2 norm of the support gradient of each adapting kernel before each step: ``{layer: [steps]}``.

    Raises:
      UserError: the learner's trace has none.
    """
    trace = trace_of(adapted_to(learner, params, episode)).items()
    norms = {name.removeprefix(PREFIX): values for name, values in trace if name.startswith(PREFIX)}
    if not norms:
        raise UserError('this learner has no gradients of an inner loop: adapt returns no trace["gradient_norm/LAYER"]')
    return norms
