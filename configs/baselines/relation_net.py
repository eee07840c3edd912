"""RelationNet, 5-way 1-shot miniImageNet.

    python -m cxgrad_jax.main --config=configs/baselines/relation_net.py --workdir=runs/relation_net

5-shot: --config.episode.shot=5 --config.train.meta_batch=2. Other data: --config.data.name=cifar_fs
--config.data.image_size=32 and the like.

The default preset, :shared, is the setting that all learners share: Conv-4 with 48 filters, no convolution bias,
images in [0, 1], 50,000 iterations of 4 tasks, Adam 1e-3, five best checkpoints.

The preset :authors is the method's own: its own encoder with wide maps, 64 filters with bias, ReLU, one episode an
iteration, 500,000 of them, the rate halved every 100,000, the best checkpoint alone. Its clipping by network,
initialisation and normalisation of images (by Omniglot's numbers) are not offered.

Published test accuracy: 50.44 ± 0.82 % (5-shot 65.32 ± 0.70 %).
"""

from cxgrad_jax.training.config import base_config, learner_config, model_config
from cxgrad_jax.training.presets import is_authors


def get_config(preset=None):
    config = base_config()
    config.learner = learner_config("relation_net")
    if is_authors(preset):
        config.model = model_config("relation_conv4", features=64, use_bias=True, negative_slope=0.0)
        config.train.meta_batch = 1
        config.train.iterations = 500_000
        config.train.decay_every = 100_000
        config.evaluation.ensemble = 1
    return config
