"""The normalisation of the backbone, 5-way 1-shot miniImageNet. The paper has no such table, but a remark at Eq. 5.

    python -m cxgrad_jax.main --config=configs/ablations/normalisation.py:layer --workdir=runs/normalisation-layer
    python -m cxgrad_jax.tables norm --workdir=runs/tables

The scaling needs a normalisation behind each convolution. The paper remarks that layer and group normalisation serve as
well as batch normalisation. The presets are :batch (the default), :layer and :group (with 8 groups). 5-shot:
--config.episode.shot=5 --config.train.meta_batch=2.

50,000 iterations of 4 tasks. Published test accuracy: 51.80 ± 0.46 % for :batch, none for the others.
"""

from cxgrad_jax.training.config import base_config
from cxgrad_jax.training.presets import one_of


def get_config(preset="batch"):
    config = base_config()
    config.model.norm = one_of(preset, ("batch", "layer", "group"))
    return config
