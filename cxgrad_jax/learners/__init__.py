"""Meta-learners, one module for each paper. Each is a factory that returns a ``MetaLearner``.

A learner of your own is made of the same parts: ``gradient_based`` and the functions that the inner loops share.
"""

from cxgrad_jax.learners._alfa import alfa
from cxgrad_jax.learners._anil import anil
from cxgrad_jax.learners._baseline_plus_plus import baseline_plus_plus
from cxgrad_jax.learners._boil import body_labels, boil
from cxgrad_jax.learners._cavia import cavia
from cxgrad_jax.learners._classifier_baseline import classifier_baseline
from cxgrad_jax.learners._cxgrad import cxgrad
from cxgrad_jax.learners._cxgrad_explicit import cxgrad_explicit
from cxgrad_jax.learners._cxgrad_informed import cxgrad_informed
from cxgrad_jax.learners._describe import describe
from cxgrad_jax.learners._gradient_based import gradient_based
from cxgrad_jax.learners._inner_loop import scan_steps, sgd, support_gradients, support_loss
from cxgrad_jax.learners._l2f import l2f
from cxgrad_jax.learners._labels import by_path, default_labels, merge, split_by_label
from cxgrad_jax.learners._losses import accuracy, cross_entropy
from cxgrad_jax.learners._maml import maml
from cxgrad_jax.learners._maml_plus_plus import maml_plus_plus
from cxgrad_jax.learners._matching_net import matching_net
from cxgrad_jax.learners._meta_baseline import meta_baseline
from cxgrad_jax.learners._meta_learner import Adapted, MetaLearner
from cxgrad_jax.learners._meta_sgd import every_parameter, meta_sgd
from cxgrad_jax.learners._metal import metal
from cxgrad_jax.learners._metaoptnet import metaoptnet
from cxgrad_jax.learners._model import apply_in_training, apply_model, batch_statistics
from cxgrad_jax.learners._modgrad import last_two_convolutions, modgrad
from cxgrad_jax.learners._modules import module_classes
from cxgrad_jax.learners._proto_net import proto_net
from cxgrad_jax.learners._r2d2 import r2d2
from cxgrad_jax.learners._relation_net import relation_net
from cxgrad_jax.learners._rfs import rfs
from cxgrad_jax.learners._spec import described, from_spec, model_from_spec, model_spec
from cxgrad_jax.learners._statistics import (
    averaging_term,
    initial_statistics,
    running_statistics,
    with_initial,
    with_running_averages,
)
from cxgrad_jax.learners._unicorn_maml import unicorn_maml

NAMES = (
    "alfa", "anil", "baseline_plus_plus", "boil", "cavia", "classifier_baseline", "cxgrad", "cxgrad_explicit",
    "cxgrad_informed", "l2f", "maml", "maml_plus_plus", "matching_net", "meta_baseline", "meta_sgd", "metal",
    "metaoptnet", "modgrad", "proto_net", "r2d2", "relation_net", "rfs", "unicorn_maml",
)  # fmt: skip
LABEL_FUNCTIONS = ("body_labels", "default_labels", "every_parameter", "last_two_convolutions")

__all__ = [
    "LABEL_FUNCTIONS", "NAMES",
    "Adapted", "MetaLearner", "accuracy", "apply_in_training", "apply_model", "averaging_term", "batch_statistics",
    "by_path", "cross_entropy", "describe", "described", "from_spec", "gradient_based", "initial_statistics", "merge",
    "model_from_spec", "model_spec", "module_classes", "running_statistics", "scan_steps", "sgd", "split_by_label",
    "support_gradients", "support_loss", "with_initial", "with_running_averages",
    "alfa", "anil", "baseline_plus_plus", "body_labels", "boil", "cavia", "classifier_baseline", "cxgrad",
    "cxgrad_explicit", "cxgrad_informed", "default_labels", "every_parameter", "l2f", "last_two_convolutions", "maml",
    "maml_plus_plus", "matching_net", "meta_baseline", "meta_sgd", "metal", "metaoptnet", "modgrad", "proto_net",
    "r2d2", "relation_net", "rfs", "unicorn_maml",
]  # fmt: skip
