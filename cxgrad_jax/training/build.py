"""The parts of a run, made from its configuration. The training loop sees these parts, and never the configuration."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from cxgrad_jax import data, evaluation, parallel
from cxgrad_jax.arguments import check_kind
from cxgrad_jax.batching import vectorised_tasks
from cxgrad_jax.data import ImageStore
from cxgrad_jax.episodes import EpisodeShape, Sampler, check_shape, sampler
from cxgrad_jax.errors import UserError
from cxgrad_jax.fitting import TrainState, init_state, outer_adam, train_program
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.platforms import current_platform
from cxgrad_jax.pretraining import pretraining, pretraining_sgd
from cxgrad_jax.training.config import ConfigDict
from cxgrad_jax.training.factories import learner_factory, model_class
from cxgrad_jax.training.sources import Source, batch_source, device_source, host_source


class Setup(NamedTuple):
    """The parts of a run.

    Attributes:
      learner: the learner to train.
      optimiser: the optimiser of the outer loop.
      mesh: the mesh of the devices that share the tasks of an iteration.
      images: two training images, which give shapes and dtype.
      seed: the seed of the start and of the training episodes.
      iterations: the number of iterations of the whole run.
      epoch_iterations: the number of iterations between two validations.
      dispatch_iterations: the largest number of iterations in one compiled call.
      rates: the fields of the configuration that are learning rates.
      source: the source of the training episodes.
      program: ``n -> compiled call of n iterations`` (``fitting.train_program``).
      val_logits: ``(params, poll) -> query logits of the validation episodes [episodes, N, way]``. ``poll`` is that of
        ``evaluation.over_episodes``.
      query_labels: the query labels of an episode, int32 ``[N]``.
    """

    learner: MetaLearner
    optimiser: optax.GradientTransformation
    mesh: Mesh
    images: np.ndarray
    seed: int
    iterations: int
    epoch_iterations: int
    dispatch_iterations: int
    rates: tuple[str, ...]
    source: Source
    program: Callable[[int], Any]
    val_logits: Callable[[Any, Callable[[], None]], np.ndarray]
    query_labels: np.ndarray


def build(config: ConfigDict, stores: dict[str, ImageStore]) -> Setup:
    """Builds a run of a checked configuration from the stores of ``"train"`` and ``"val"``."""
    learner, optimiser, mesh = build_learner(config), build_optimiser(config), build_mesh(config)
    source = (build_batches if is_pretraining(config) else build_source)(config, stores["train"], mesh)
    validation = build_sampler(config, stores["val"])

    def program(num_iterations):
        return build_program(config, learner, optimiser, mesh, source, num_iterations)

    return Setup(
        learner=learner,
        optimiser=optimiser,
        mesh=mesh,
        images=np.asarray(stores["train"].images[:2]),
        seed=config.seed,
        iterations=config.train.iterations,
        epoch_iterations=config.train.epoch_iterations,
        dispatch_iterations=iterations_per_dispatch(config),
        rates=("train.learning_rate", *inner_rates(config)),
        source=source,
        program=program,
        val_logits=evaluation.over_episodes(
            evaluation.query_logits(learner), validation.batch, config.evaluation.val_episodes, mesh
        ),
        query_labels=validation.shape.labels()[1],
    )


def is_pretraining(config: ConfigDict) -> bool:
    """Whether the run trains a classifier of the training classes, and not a learner in episodes."""
    return "pretrain" in config


def build_model(config: ConfigDict) -> nn.Module:
    """Makes the backbone, with a head of ``episode.way`` outputs.

    Raises:
      UserError: a model of the user's own has no field ``num_classes``, or refuses a value.
    """
    fields = config.model.to_dict()
    name = fields.pop("name")
    try:
        return model_class(name)(num_classes=config.episode.way, **fields)
    except TypeError as error:
        raise UserError(f"model.name is {name!r}; it cannot be made with num_classes and its fields: {error}") from None


def build_learner(config: ConfigDict) -> MetaLearner:
    """Makes the learner on its model. For a pre-training it has the classifier's parameters and loss.

    Raises:
      UserError: the learner or the model refuses a value, or a factory of the user's own gives no learner.
    """
    hyper_parameters, model = config.learner.to_dict(), build_model(config)
    name = hyper_parameters.pop("name")
    factory = learner_factory(name)
    try:
        learner = factory(model, **hyper_parameters)
    except TypeError as error:
        raise UserError(
            f"learner.name is {name!r}; it cannot be made of a model and its hyper-parameters: {error}"
        ) from None
    check_kind(f"what {name} returns", learner, ("init", "adapt", "predict", "loss"), "a cx.MetaLearner")
    return pretraining(learner, model, config.pretrain.num_classes) if is_pretraining(config) else learner


def build_optimiser(config: ConfigDict) -> optax.GradientTransformation:
    """Makes the outer optimiser. For a pre-training it is SGD with momentum and weight decay."""
    train = config.train
    if is_pretraining(config):
        stage = config.pretrain
        return pretraining_sgd(
            train.learning_rate, stage.momentum, stage.weight_decay, stage.drop_at, stage.drop_factor
        )
    return outer_adam(train.learning_rate, train.decay_every, train.decay_factor, train.gradient_clamp)


def build_mesh(config: ConfigDict) -> Mesh:
    """Makes the mesh of the devices that share the tasks of an iteration."""
    return parallel.task_mesh(num_devices(config))


def build_sampler(config: ConfigDict, store: ImageStore) -> Sampler:
    """Makes the sampler of a store. ``seed`` draws training episodes; ``evaluation.seed`` draws all others."""
    seed = config.seed if store.split == "train" else config.evaluation.seed
    return sampler(store, *episode_shape(config), seed=seed)


def storage_of(config: ConfigDict, store: ImageStore, memory: float) -> str:
    """Where the training images lie, "device" or "host": as configured, else on a device whose memory they fit."""
    if config.data.storage != "auto":
        return config.data.storage
    return "device" if parallel.fits_on_device(store.images.nbytes, memory) else "host"


def build_source(config: ConfigDict, store: ImageStore, mesh: Mesh, storage: str | None = None) -> Source:
    """Makes the source of training episodes on ``storage``, the device or the host. None means ``storage_of``."""
    storage = storage or storage_of(config, store, parallel.device_memory(mesh))
    make = device_source if storage == "device" else host_source
    return make(build_sampler(config, store), config.train.meta_batch, mesh)


def build_batches(config: ConfigDict, store: ImageStore, mesh: Mesh) -> Source:
    """Makes the source of the batches of a pre-training.

    Raises:
      UserError: there are more training classes than outputs of the head, or fewer images than in a batch.
    """
    classes, images = len(store.class_names), len(store.images)
    if classes > config.pretrain.num_classes:
        raise UserError(
            f"pretrain.num_classes is {config.pretrain.num_classes}, but {store.name} has {classes} training classes; "
            f"set it to {classes}"
        )
    if images < config.pretrain.batch_size:
        raise UserError(
            f"pretrain.batch_size is {config.pretrain.batch_size}, but {store.name} has {images} training images"
        )
    return batch_source(store, config.pretrain.batch_size, config.pretrain.augmentation, config.seed, mesh)


def build_program(
    config: ConfigDict,
    learner: MetaLearner,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
    source: Source,
    num_iterations: int,
) -> Any:
    """Makes the compiled call of ``num_iterations`` outer iterations."""
    return train_program(
        learner.loss,
        optimiser,
        source.draw,
        mesh,
        source.spec,
        num_iterations,
        config.parallel.tasks_per_chunk,
        config.train.task_reduction,
    )


def episode_shape(config: ConfigDict) -> EpisodeShape:
    """Way, shot and query of the episodes."""
    return EpisodeShape(config.episode.way, config.episode.shot, config.episode.query)


def load_stores(config: ConfigDict, splits: tuple[str, ...], dataset: str | None = None) -> dict[str, ImageStore]:
    """Loads the image stores of ``splits``, and checks that they can give the episodes.

    Args:
      config: the configuration of the run.
      splits: some of "train", "val" and "test".
      dataset: the data set. None means ``config.data.name``.

    Raises:
      UserError: the data set is unknown or not prepared, or it has too few classes or images.
    """
    stores = {}
    for split in splits:
        store = data.load(
            dataset or config.data.name, split, data_dir=config.data.dir or None, image_size=config.data.image_size
        )
        if split == "train" and config.data.rotated_classes:
            store = data.with_rotations(store)
        check_shape(store, episode_shape(config))  # the store can give the episodes
        stores[split] = store
    return stores


def num_devices(config: ConfigDict) -> int:
    """The number of devices that share the tasks of an iteration: as configured, else all.

    A CPU is one device, unless JAX was told to simulate more. Then the largest number that divides ``train.meta_batch``
    is used. A pre-training has one device, because its batch is normalised as a whole.
    """
    if is_pretraining(config):
        return 1
    if config.parallel.num_devices or jax.process_count() > 1 or current_platform() != "cpu":
        return config.parallel.num_devices or jax.device_count()
    return max(n for n in range(1, jax.device_count() + 1) if config.train.meta_batch % n == 0)


def tasks_at_once(config: ConfigDict) -> int:
    """The number of tasks of a device that an iteration vectorises at once. A pre-training has one task."""
    tasks = 1 if is_pretraining(config) else config.train.meta_batch // num_devices(config)
    return vectorised_tasks(tasks, config.parallel.tasks_per_chunk)


def iterations_per_dispatch(config: ConfigDict) -> int:
    """The largest number of iterations in one compiled call: as configured, else a divisor of an epoch."""
    if config.train.iterations_per_dispatch:
        return config.train.iterations_per_dispatch
    most = 5 if current_platform() == "cpu" else 50
    common = math.gcd(config.train.epoch_iterations, config.train.iterations)
    return max(n for n in range(1, most + 1) if common % n == 0)


def inner_rates(config: ConfigDict) -> list[str]:
    """The fields of the learner that are rates of its inner loop, which a pre-training does not run."""
    return [] if is_pretraining(config) else [f"learner.{name}" for name in config.learner if name.endswith("_lr")]


def keep_every(config: ConfigDict) -> int:
    """The number of iterations between the checkpoints that are kept for analyses over training.

    If it is not configured, it is a whole number of epochs, so that at most ten checkpoints are kept.
    """
    if config.train.keep_every:
        return config.train.keep_every
    epochs = max(1, -(-config.train.iterations // config.train.epoch_iterations))
    return -(-epochs // 10) * config.train.epoch_iterations


def first_state(setup: Setup, started: Callable[[Any], Any] | None = None) -> TrainState:
    """The state before the first iteration, on every device of the mesh.

    Args:
      setup: the parts of the run.
      started: a function that changes the parameters from the learner's ``init``. None keeps them.
    """
    state = init_state(setup.learner, setup.optimiser, setup.seed, setup.images)
    return parallel.put(setup.mesh, state._replace(params=started(state.params)) if started else state)


def abstract_state(
    learner: MetaLearner, optimiser: optax.GradientTransformation, images: Any, mesh: Mesh
) -> TrainState:
    """The shapes, dtypes and place (a copy on every device) of a run's state, which ``Checkpoints.restore`` takes."""
    everywhere = jax.sharding.NamedSharding(mesh, parallel.REPLICATED)
    shapes = jax.eval_shape(lambda: init_state(learner, optimiser, 0, images))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
