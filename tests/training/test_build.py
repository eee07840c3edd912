"""What of the configuration is derived: iterations of a dispatch, devices."""

import jax
import pytest

from cxgrad_jax.training import build, checks
from cxgrad_jax.training import config as configuration
from cxgrad_jax.training.config import base_config


@pytest.mark.parametrize("iterations, epoch, most", [(50_000, 500, 5), (500, 100, 5), (8, 2, 2), (7, 7, 1), (12, 9, 3)])
def test_iterations_per_dispatch_divides_epoch_and_run(iterations, epoch, most):
    config = base_config()
    config.train.iterations, config.train.epoch_iterations = iterations, epoch
    assert jax.default_backend() != "cpu" or build.iterations_per_dispatch(config) == most
    config.train.iterations_per_dispatch = 1
    assert build.iterations_per_dispatch(config) == 1


@pytest.mark.parametrize(("tasks", "asked", "devices"), [(4, 0, 4), (2, 0, 2), (3, 0, 3), (5, 0, 1), (4, 1, 1)])
def test_as_many_of_four_cores_as_divide_the_tasks(tasks, asked, devices):
    config = configuration.base_config()
    config.train.meta_batch, config.parallel.num_devices = tasks, asked
    assert build.num_devices(config) == devices
    checks.check_parallel(config)
