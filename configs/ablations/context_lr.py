"""The learning rate beta of the context, 5-way 1-shot and 5-shot miniImageNet: Table 5.

    python -m cxgrad_jax.main --config=configs/ablations/context_lr.py:0.1 --workdir=runs/context_lr-0.1
    python -m cxgrad_jax.tables 5 --workdir=runs/tables

The preset is the rate: 0.01, 0.1 or 1.0 (the default). 5-shot: --config.episode.shot=5 --config.train.meta_batch=2.

50,000 iterations of 4 tasks. Published test accuracy: 51.56, 51.29 and 51.80 % (5-shot 69.28, 69.34 and 69.82 %).
"""

from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.presets import one_of


def get_config(preset="1.0"):
    config = base_config()
    config.learner.context_lr = float(one_of(preset, ("0.01", "0.1", "1.0")))
    return config
