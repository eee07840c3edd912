"""UNICORN-MAML, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/unicorn_maml.py --workdir=runs/unicorn_maml

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: ResNet-12 of 64, 160, 320 and 640 filters that pools in every block, leaky ReLU
0.1 inside the blocks, ImageNet's mean and deviation, one task an iteration, 10,000 iterations, the rate divided by ten
every 2,000, the best checkpoint alone (5-shot: --config.learner.num_steps=20). Adam takes the place of SGD with
momentum and weight decay. Dropout and DropBlock are not offered. The published numbers start from a pre-trained
encoder.

Published test accuracy: 65.17 % (5-shot 84.30 %), tieredImageNet 69.24 % (86.06 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("unicorn_maml")
    if is_authors(preset):
        config.model = model_config("resnet12", channels=(64, 160, 320, 640), pooling="every_block")
        config.model.negative_slope = 0.1
        config.model.relu_output = True
        config.model.image_statistics = "imagenet"
        config.train.meta_batch = 1
        config.train.iterations = 10_000
        config.train.decay_every = 2_000
        config.train.decay_factor = 0.1
        config.evaluation.ensemble = 1
    return config
