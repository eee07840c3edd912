"""ANIL: almost no inner loop (Raghu et al., ICLR 2020; https://arxiv.org/abs/1909.09157).

    psi_0 = psi,   psi_{k+1} = psi_k - alpha * dL(psi_k; f(S))/dpsi_k,   meta loss L(psi_K; f(Q))

This is MAML whose inner loop adapts only the head psi. The outer loop learns the features f, too. The method's authors
have published no code. Facts are from two unofficial codes, which differ: the BOIL repository takes 1 step of 0.5, and
learn2learn takes 5 steps of 0.1 and encodes support and query images in one batch. The paper's own numbers are not
verified.
"""

import flax.linen as nn
import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import constant_if, scan_steps, sgd, traced_norms
from cxgrad_jax.learners._labels import ADAPTED, META
from cxgrad_jax.learners._losses import cross_entropy
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._mlp import linear
from cxgrad_jax.learners._model import apply_model
from cxgrad_jax.learners._modules import check_head
from cxgrad_jax.learners._spec import described


def head_labels(path: str, value: jax.Array) -> str:
    """``"adapted"`` for the layer named head, ``"meta"`` for everything else."""
    del value
    return ADAPTED if path.startswith("head/") else META


@described
def anil(
    model: nn.Module,
    *,
    inner_lr: float = 0.1,
    num_steps: int = 5,
    first_order: bool = False,
    query_statistics: str = "query",
) -> MetaLearner:
    """ANIL: MAML that adapts only the head (https://arxiv.org/abs/1909.09157).

    It encodes support and query images in separate passes, and computes the support features once.

    Args:
      model: a backbone with the method ``embed(images [N, H, W, C]) -> [N, D]`` and a linear layer ``head``. Its logits
        are those of ``head`` on the features of ``embed``, with nothing in between or after.
      inner_lr: alpha, the inner learning rate.
      num_steps: the number of inner steps.
      first_order: whether the outer loop treats inner gradients as constants.
      query_statistics: the statistics that normalise query images: ``"query"``, those of the query images themselves
        (transductive), or ``"support"``, those of the support set at the adapted parameters (inductive).

    Meta-parameters: ``{"model": ...}``. Trace: ``"support_loss" [num_steps]``, before each update.

    Raises:
      UserError: the model has no ``embed``; or in ``init``, it has no layer named head, or its logits are not those of
        ``head`` on the features of ``embed``.
    """
    if not callable(getattr(model, "embed", None)):
        raise UserError(f"{type(model).__name__} has no method embed(images); anil needs the features before the head")

    def adapt(params, support_images, support_labels):
        features = apply_model(model, params["model"], support_images, "embed")

        def support_loss(head):
            return cross_entropy(linear(head, features), support_labels)

        def step(head, _):
            loss, gradient = jax.value_and_grad(support_loss)(head)
            gradient = constant_if(first_order, gradient)
            fast, gradients = ({f"head/{name}": x for name, x in tree.items()} for tree in (head, gradient))
            trace = {"support_loss": loss, "fast": fast, **traced_norms(gradients)}
            return sgd(head, gradient, inner_lr), trace

        head, trace = scan_steps(step, dict(params["model"]["head"]), num_steps, remat=False)
        return Adapted({**params["model"], "head": head}, trace)

    learner = gradient_based(model, adapt, param_labels=head_labels, query_statistics=query_statistics)

    def init(key, images):
        params = learner.init(key, images)
        if "head" not in params["model"]:
            raise UserError(f"{type(model).__name__} has no layer named head, the only one that anil adapts")
        check_head(model, params["model"], images)
        return params

    return learner._replace(init=init)
