"""UNICORN-MAML: MAML whose head starts from one vector for every class (Ye and Chao, ICLR 2022).

    W_0 = w in each of the N rows,   c_0 = b in each of the N entries
    (phi, W, c)_{k+1} = (phi, W, c)_k - alpha * dL((phi, W, c)_k; S)/d(phi, W, c)          constants for the outer loop
    query logits = (W_K f(x; phi_K) + c_K) / tau

The outer loop learns the encoder's phi, the vector w and the number b. A permutation of the classes permutes the logits
and changes nothing else. With equal rows the gradient with respect to the features is zero. The first step therefore
moves only the head, to a classifier by class means. The gradients with respect to w and b are sums over the classes,
which are zero for a cross-entropy. Only weight decay moves w and b, and w stays a random vector. The paper:
https://arxiv.org/abs/2106.16245.

Facts from the authors' code (https://github.com/Han-Jia/UNICORN-MAML): it is of first order, scale and shift of
normalisations adapt too, and tau is 0.5 for query images only. It starts from a pre-trained encoder, without which it
hardly learns. At evaluation it normalises query images by running averages that the inner steps have moved towards the
support set's statistics. ``query_statistics="support"`` comes closest to that. Its dropout and DropBlock are not
offered.
"""

import flax.linen as nn
import jax.numpy as jnp

from cxgrad_jax.arguments import is_whole
from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._labels import ParamLabels
from cxgrad_jax.learners._maml import gradient_steps
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._meta_sgd import every_parameter
from cxgrad_jax.learners._mlp import init_linear
from cxgrad_jax.learners._spec import described


@described
def unicorn_maml(
    model: nn.Module,
    *,
    inner_lr: float = 0.1,
    num_steps: int = 5,
    temperature: float = 0.5,
    param_labels: ParamLabels = every_parameter,
    query_statistics: str = "query",
) -> MetaLearner:
    """UNICORN-MAML: MAML whose head starts from one vector for every class (https://arxiv.org/abs/2106.16245).

    It is of first order, as published.

    Args:
      model: a backbone with ``num_classes`` (the way) and a linear layer ``head``.
      inner_lr: alpha, the inner learning rate.
      num_steps: the number of inner steps.
      temperature: tau, the number by which the query logits are divided.
      param_labels: which parameters adapt, ``(path, value) -> "adapted" | "meta"``.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ...}``, whose head has one output: kernel w ``[D, 1]`` and bias b ``[1]``. The trace is
    that of ``maml``.

    Raises:
      UserError: the model has no ``num_classes``, or in ``init``, it has no linear layer ``head``.
    """
    way = getattr(model, "num_classes", None)
    if not is_whole(way):
        raise UserError(f"{type(model).__name__} has no num_classes; unicorn_maml makes that many copies of its head")
    inner_loop = gradient_steps(model, inner_lr, num_steps, first_order=True, remat=False, param_labels=param_labels)

    def adapt(params, support_images, support_labels):
        head = {name: jnp.repeat(value, way, axis=-1) for name, value in params["model"]["head"].items()}
        return inner_loop({"model": {**params["model"], "head": head}}, support_images, support_labels)

    def init_one_output(key, model_params, images):
        if "head" not in model_params:
            raise UserError(f"{type(model).__name__} has no layer head; unicorn_maml copies its one output")
        kernel = model_params["head"]["kernel"]
        head = init_linear(key, len(kernel), 1, len(kernel) ** -0.5, kernel.dtype)
        return {"model": {**model_params, "head": head}}

    return gradient_based(
        model, adapt, init_one_output,
        param_labels=param_labels, query_statistics=query_statistics, temperature=temperature,
    )  # fmt: skip
