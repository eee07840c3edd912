"""Supervised pre-training of Conv-4 on CIFAR-FS, with RFS's settings for that data set.

    python -m cxgrad_jax.main --mode=pretrain --config=configs/pretrain_cifar_fs.py --workdir=runs/pretrain_cifar_fs

54,000 batches of 64 images, 90 passes; the rate falls tenfold after passes 45, 60 and 75.
"""

from cxgrad_jax.training.config import pretrain_config


def get_config():
    return pretrain_config()
