"""BOIL: body-only update in the inner loop (Oh et al., ICLR 2021): MAML whose inner loop adapts all but the head.

    phi' = phi - alpha * dL(phi, psi; S)/dphi,   meta loss L(phi', psi; Q)

for a body phi and a head psi. Facts from the authors' code (jhoon-oh/BOIL): one step, alpha 0.5 (0.3 on ResNet-12,
whose shortcuts it leaves unadapted, unlike here), and the body is every parameter but the head's: convolution biases
and the scale and shift of normalisations adapt too.
"""

import flax.linen as nn
import jax

from cxgrad_jax.errors import UserError
from cxgrad_jax.learners._base import ADAPTED, META, Labels, MetaLearner
from cxgrad_jax.learners._maml import maml


def body_labels(path: str, leaf: jax.Array) -> str:
    """``"meta"`` for the layer named head, ``"adapted"`` for all else."""
    del leaf
    return META if path.startswith("head/") else ADAPTED


def boil(
    model: nn.Module,
    *,
    inner_lr: float = 0.5,
    num_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    labels: Labels = body_labels,
) -> MetaLearner:
    """BOIL with the mean support cross-entropy; arguments, meta-parameters and trace as ``maml``.

    Raises:
      UserError: in ``init``, the model has no layer named head and no ``labels`` tell which parameters adapt.
    """
    learner = maml(
        model, inner_lr=inner_lr, num_steps=num_steps, first_order=first_order, remat=remat, labels=labels
    )  # fmt: skip

    def init(key, images):
        params = learner.init(key, images)
        if labels is body_labels and "head" not in params["model"]:
            raise UserError(f"{type(model).__name__} has no layer named head; give boil labels that tell head and body")
        return params

    return learner._replace(init=init)
