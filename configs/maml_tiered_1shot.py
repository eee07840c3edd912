"""MAML, Conv-4, 5-way 1-shot tieredImageNet: a cell of Table 1.

    python -m cxgrad_jax.main --config=configs/maml_tiered_1shot.py --workdir=runs/maml_tiered_1shot

125,000 iterations of 4 tasks. Published test accuracy: 49.06 ± 0.50 %, quoted by the paper from another work.
The official MAML file for tieredImageNet has 64 filters; here 48, as for CxGrad: --config.model.features=64 is theirs.
"""

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("maml")
    config.data.name = "tiered_imagenet"
    config.train.iterations = 125_000
    return apply_preset(config, preset)
