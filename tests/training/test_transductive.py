"""What a prediction sees, in words and as yes or no, and that both agree."""

import pytest

from cxgrad_jax.training.config import base_config, learner_config
from cxgrad_jax.training.transductive import batch_norm, is_transductive


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
@pytest.mark.parametrize("statistics", ["query", "support"])
@pytest.mark.parametrize("name", ["maml", "metal"])
def test_words_and_verdict_agree(name, statistics, norm):
    config = base_config()
    config.learner = learner_config(name, query_statistics=statistics)
    config.model.norm = norm
    sees_all = statistics == "query" and (norm == "batch" or name == "metal")
    assert is_transductive(config) == sees_all == ("transductive" in batch_norm(config))
