"""Meta-Baseline, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/meta_baseline.py --workdir=runs/meta_baseline

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: ResNet-12 of 64, 128, 256 and 512 filters that pools in every block, leaky ReLU
0.1, images of 80 pixels, ImageNet's mean and deviation, support and query normalised together (in the authors' code
with the other episodes of the iteration), running averages at evaluation, 4,000 iterations of 4 tasks, the best
checkpoint alone. Adam takes the place of SGD with momentum and weight decay. The published numbers start from a
pre-trained encoder.

Published test accuracy: 63.17 ± 0.23 % (5-shot 79.26 ± 0.17 %), tieredImageNet 68.62 ± 0.27 % (83.29 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("meta_baseline")
    if is_authors(preset):
        config.learner.query_statistics = "running"
        config.model = model_config("resnet12", channels=(64, 128, 256, 512), pooling="every_block")
        config.model.negative_slope = 0.1
        config.model.image_statistics = "imagenet"
        config.data.image_size = 80
        config.learner.joint_normalisation = True
        config.train.iterations = 4_000
        config.evaluation.ensemble = 1
    return config
