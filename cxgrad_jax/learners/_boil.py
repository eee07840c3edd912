"""BOIL: body-only update in the inner loop (Oh et al., ICLR 2021; https://arxiv.org/abs/2008.08882).

    phi' = phi - alpha * dL(phi, psi; S)/dphi,   meta loss L(phi', psi; Q)

This is MAML whose inner loop adapts the body phi and not the head psi. The body is every parameter except the head's,
so that convolution biases and the scale and shift of normalisations adapt too.

Facts from the authors' code (https://github.com/jhoon-oh/BOIL): it takes one step with alpha 0.5, or 0.3 on ResNet-12.
There it does not adapt the shortcuts, unlike this package.
"""

import flax.linen as nn
import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._labels import ADAPTED, META, ParamLabels
from cxgrad_jax.learners._maml import maml
from cxgrad_jax.learners._meta_learner import MetaLearner
from cxgrad_jax.learners._spec import described


def body_labels(path: str, value: jax.Array) -> str:
    """``"meta"`` for the layer named head, ``"adapted"`` for everything else."""
    del value
    return META if path.startswith("head/") else ADAPTED


@described
def boil(
    model: nn.Module,
    *,
    inner_lr: float = 0.5,
    num_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    param_labels: ParamLabels = body_labels,
    query_statistics: str = "query",
) -> MetaLearner:
    """BOIL: MAML that adapts the body and not the head (https://arxiv.org/abs/2008.08882).

    The support loss is the mean cross-entropy. Arguments, meta-parameters and trace are those of ``maml``.

    Raises:
      UserError: in ``init``, the model has no layer named head, and no ``param_labels`` say which parameters adapt.
    """
    learner = maml(
        model, inner_lr=inner_lr, num_steps=num_steps, first_order=first_order, remat=remat, param_labels=param_labels,
        query_statistics=query_statistics,
    )  # fmt: skip

    def init(key, images):
        params = learner.init(key, images)
        if param_labels is body_labels and "head" not in params["model"]:
            raise UserError(
                f"{type(model).__name__} has no layer named head; give boil param_labels that tell it apart"
            )
        return params

    return learner._replace(init=init)
