"""MAML, Conv-4, 5-way 5-shot, trained on miniImageNet and tested on CUB at 84x84: a cell of Table 2.

    python -m cxgrad_jax.main --config=configs/maml_mini_to_cub_5shot.py --workdir=runs/maml_mini_to_cub_5shot

Or test a finished run of maml_mini_5shot.py, without training again:

    python -m cxgrad_jax.main --mode=evaluate --config.evaluation.data=cub --workdir=runs/maml_mini_5shot

50,000 iterations of 2 tasks. Published test accuracy: 52.70 ± 0.32 %.
"""

from cxgrad_jax.training.config import base_config, five_shot, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    five_shot(config)
    config.evaluation.data = "cub"
    return apply_preset(config, preset)
