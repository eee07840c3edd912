"""Meta-learners: one paper, one module; each a factory that returns a ``MetaLearner``."""

from cxgrad_jax.learners._alfa import alfa
from cxgrad_jax.learners._anil import anil
from cxgrad_jax.learners._base import MetaLearner, Task, default_labels
from cxgrad_jax.learners._boil import boil
from cxgrad_jax.learners._cavia import cavia
from cxgrad_jax.learners._cxgrad import cxgrad
from cxgrad_jax.learners._l2f import l2f
from cxgrad_jax.learners._maml import maml
from cxgrad_jax.learners._maml_plus_plus import maml_plus_plus
from cxgrad_jax.learners._matching_net import matching_net
from cxgrad_jax.learners._meta_sgd import meta_sgd
from cxgrad_jax.learners._modgrad import modgrad
from cxgrad_jax.learners._proto_net import proto_net
from cxgrad_jax.learners._relation_net import relation_net

__all__ = [
    "MetaLearner", "Task", "default_labels",
    "alfa", "anil", "boil", "cavia", "cxgrad", "l2f", "maml", "maml_plus_plus", "matching_net", "meta_sgd", "modgrad",
    "proto_net", "relation_net",
]  # fmt: skip

NAMES = (
    "cxgrad", "maml", "anil", "boil", "meta_sgd", "maml_plus_plus", "l2f", "alfa", "modgrad", "cavia", "proto_net",
    "matching_net", "relation_net",
)  # fmt: skip
"""The learners' names: what ``learner.name`` of a configuration may be."""
