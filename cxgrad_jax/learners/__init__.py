"""Meta-learners: one paper, one module; each a factory that returns a ``MetaLearner``."""

from cxgrad_jax.learners.base import MetaLearner, Task, default_labels
from cxgrad_jax.learners.cxgrad import cxgrad
from cxgrad_jax.learners.maml import maml
from cxgrad_jax.learners.matching_net import matching_net
from cxgrad_jax.learners.proto_net import proto_net
from cxgrad_jax.learners.relation_net import relation_net

__all__ = [
    "MetaLearner", "Task", "cxgrad", "default_labels", "maml", "matching_net", "proto_net", "relation_net",
]  # fmt: skip
