"""MAML, Conv-4, 5-way 1-shot miniImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/maml_mini_1shot.py --workdir=runs/maml_mini_1shot

50,000 iterations of 4 tasks. Published test accuracy: 48.70 ± 1.84 %, quoted by the paper from another work.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    return apply_preset(config, preset)
