"""Meta-learners: one paper, one module; each a factory that returns a ``MetaLearner``."""

from cxgrad_jax.learners.base import MetaLearner, Task, default_labels
from cxgrad_jax.learners.cxgrad import cxgrad
from cxgrad_jax.learners.maml import maml

__all__ = ["MetaLearner", "Task", "cxgrad", "default_labels", "maml"]
