"""CxGrad on the embedded glyphs, 5-way 1-shot: the default without --config. It takes minutes on a CPU.

    python -m cxgrad_jax.main --config=configs/glyphs_1shot.py --workdir=runs/glyphs

500 iterations of 4 tasks.
"""

from cxgrad_jax.training.config import glyphs_config
from cxgrad_jax.training.presets import apply_preset


def get_config(preset=None):
    return apply_preset(glyphs_config(), preset)
