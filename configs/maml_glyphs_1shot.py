"""MAML on the embedded glyphs, 5-way 1-shot, with the budget of the default.

    python -m cxgrad_jax.main --config=configs/maml_glyphs_1shot.py --workdir=runs/maml_glyphs

500 iterations of 4 tasks.
"""

from cxgrad_jax.training.config import glyphs_config, learner_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    config = glyphs_config()
    config.learner = learner_config("maml")
    return apply_preset(config, preset)
