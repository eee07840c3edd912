"""Supervised pre-training of Conv-4 on the embedded glyphs: what --mode=pretrain runs without --config.

    python -m cxgrad_jax.main --mode=pretrain --config=configs/pretrain_glyphs.py --workdir=runs/pretrain_glyphs

2,000 batches of 64 images. Another run starts from it with --config.train.start_from=runs/pretrain_glyphs.
"""

from cxgrad_jax.training.config import pretrain_glyphs_config


def get_config():
    return pretrain_glyphs_config()
