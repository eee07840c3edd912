r"""Supervised pre-training of a narrow ResNet-12 (32 to 256 channels) on CIFAR-FS, with RFS's settings.

    python -m cxgrad_jax.main --mode=pretrain --config=configs/pretrain_cifar_fs_resnet12.py \
        --workdir=runs/pretrain_cifar_fs_resnet12

54,000 batches of 64 images, 90 passes; the rate falls tenfold after passes 45, 60 and 75. The authors' network has 64
to 640 channels and DropBlock, which is not offered.
"""

from cxgrad_jax.training.config import model_config, pretrain_config


def get_config():
    config = pretrain_config()
    config.model = model_config("resnet12", channels=(32, 64, 128, 256), pooling="every_block")
    return config
