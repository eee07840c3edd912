"""MAML, Conv-4, 5-way 5-shot miniImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/maml_mini_5shot.py --workdir=runs/maml_mini_5shot

50,000 iterations of 2 tasks. Published test accuracy: 63.11 ± 0.92 %, quoted by the paper from another work.
"""

from cxgrad_jax.training.config import base_config, five_shot, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    five_shot(config)
    return apply_preset(config, preset)
