r"""Supervised pre-training of ResNet-12 on miniImageNet, like the first stage of Meta-Baseline.

    python -m cxgrad_jax.main --mode=pretrain --config=configs/pretrain_mini_resnet12.py \
        --workdir=runs/pretrain_mini_resnet12

30,000 batches of 128 images, 100 passes; the rate falls tenfold after pass 90. Meta-Baseline has images of 80 pixels
and random resized crops; here they have 84 and are padded and cropped.
"""

from cxgrad_jax.training.config import model_config, pretrain_config


def get_config():
    config = pretrain_config()
    config.data.name = "mini_imagenet"
    config.data.image_size = 84
    config.model = model_config("resnet12", pooling="every_block")
    config.train.iterations = 30_000
    config.train.epoch_iterations = 300
    config.train.learning_rate = 0.1
    config.pretrain.batch_size = 128
    config.pretrain.augmentation = "crop"
    config.pretrain.drop_at = (27_000,)
    return config
