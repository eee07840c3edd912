"""Meta-training: outer iterations of an Optax optimiser on the query loss.

In short::

    params = cxgrad_jax.fit(learner, sampler, optax.adam(1e-3), iterations=500)
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cxgrad_jax import batching, parallel
from cxgrad_jax.arguments import (
    check_function,
    check_learner,
    check_optimiser,
    check_params,
    check_sampler,
    check_seed,
    check_whole,
)
from cxgrad_jax.episodes import Episode, Sampler
from cxgrad_jax.errors import UserError
from cxgrad_jax.keys import fixed_draws, purpose_key
from cxgrad_jax.learners import MetaLearner, with_running_averages
from cxgrad_jax.learners._checked import check_way
from cxgrad_jax.learners._meta_learner import Loss
from cxgrad_jax.learners._statistics import with_statistics_of, without_statistics
from cxgrad_jax.platforms import current_platform, on_mesh

# What a progress bar says before the first iteration. A Conv-4 takes about so long on each platform.
COMPILING = {"cpu": "compiling (about 15 s)", "gpu": "compiling (about a minute)", "tpu": "compiling (some minutes)"}


class TrainState(NamedTuple):
    """Everything that an outer iteration changes, and all that a checkpoint holds.

    Attributes:
      params: the meta-parameters, a pytree such as ``MetaLearner.init`` returns.
      opt_state: the optimiser's state. It has no part for running averages.
      iteration: an int32 scalar, the number of outer iterations done.
    """

    params: Any
    opt_state: optax.OptState
    iteration: jax.Array


def init_state(learner: MetaLearner, optimiser: optax.GradientTransformation, seed: int, images: Any) -> TrainState:
    """The state before the first iteration: a pure function of the seed and of the shape of ``images [N, H, W, C]``."""

    def init(images):
        with fixed_draws():
            params = learner.init(purpose_key(seed, "init"), images)
        return TrainState(params, with_running_averages(optimiser).init(params), jnp.zeros((), jnp.int32))

    return jax.jit(init)(images)


def outer_adam(
    learning_rate: float, decay_every: int = 0, decay_factor: float = 1.0, gradient_clamp: float = 0.0
) -> optax.GradientTransformation:
    """Adam as the official code runs it: betas 0.9 and 0.999, eps 1e-8, no weight decay.

    Args:
      learning_rate: the rate at the start.
      decay_every: after every so many iterations the rate is multiplied by ``decay_factor``; 0 means never.
      decay_factor: the factor of the rate.
      gradient_clamp: every entry of the gradient is first cut to ± this value; 0 means no cut.

    Reference: https://github.com/shlee625/CxGrad
    """
    rate: Any = learning_rate
    if decay_every:
        rate = optax.exponential_decay(learning_rate, decay_every, decay_factor, staircase=True)
    adam = optax.adam(rate)
    return optax.chain(optax.clip(gradient_clamp), adam) if gradient_clamp else adam


def train_program(
    loss: Loss,
    optimiser: optax.GradientTransformation,
    draw: Callable[[Any, jax.Array, jax.Array], Episode],
    mesh: Mesh,
    source_spec: P,
    num_iterations: int,
    at_once: int = 0,
    task_reduction: str = "mean",
) -> Any:
    """Compiles ``num_iterations`` outer iterations into one call; each device of the mesh works on its own tasks.

    Args:
      loss: a ``MetaLearner.loss``.
      optimiser: the optimiser of the outer loop.
      draw: ``(source, iteration, i) -> episodes`` of one device, inside the compiled program. ``iteration`` is the
        outer iteration, and ``i`` counts from 0 in this call.
      mesh: a mesh with a task axis.
      source_spec: how the source lies on the mesh.
      num_iterations: the number of outer iterations in one call.
      at_once: the number of tasks of a device that are vectorised together; 0 takes what is fast on the platform.
      task_reduction: ``"mean"`` or ``"sum"`` of the gradients over tasks.

    Returns:
      ``(state, source) -> (state, metrics)``. The metrics are arrays ``[num_iterations]``. The state is donated.
    """

    optimiser = with_running_averages(optimiser)

    def iterate(source, state: TrainState, i):
        episodes, params = draw(source, state.iteration, i), parallel.vary(state.params)
        tasks = jax.tree.leaves(episodes)[0].shape[0]

        (value, metrics), gradients = batching.mean_loss_and_gradients(
            partial(loss, iteration=state.iteration), params, episodes, batching.vectorised_tasks(tasks, at_once)
        )
        value, metrics, gradients = parallel.mean_over_devices((value, metrics, gradients))
        if task_reduction == "sum":  # running averages take the mean in either case
            total = jax.tree.map(lambda g: g * (tasks * mesh.devices.size), gradients)
            gradients = with_statistics_of(total, gradients)
        return updated(optimiser, state, value, metrics, gradients)

    def program(state, source):
        return jax.lax.scan(lambda state, i: iterate(source, state, i), state, jnp.arange(num_iterations))

    sharded = jax.shard_map(program, mesh=mesh, in_specs=(P(), source_spec), out_specs=(P(), P()))
    return parallel.compiled_for(mesh, sharded, donate_argnums=0)


def updated(
    optimiser: optax.GradientTransformationExtraArgs,
    state: TrainState,
    loss: jax.Array,
    metrics: dict[str, Any],
    gradients: Any,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes the state after an outer iteration with these gradients, and all its metrics.

    The optimiser gets the loss as ``value``, which some need, such as ``optax.contrib.reduce_on_plateau``.
    """
    metrics = {"loss": loss, **metrics, "gradient_norm": optax.tree.norm(without_statistics(gradients))}
    # Optax mixes dtypes and ranks, which a user may have forbidden to JAX.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params, value=loss)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.iteration + 1), metrics


def _check_update(optimiser: optax.GradientTransformation, state: TrainState) -> None:
    """Refuses an optimiser whose update takes other arguments than it gets here."""

    def update(state):
        return updated(with_running_averages(optimiser), state, jnp.zeros(()), {}, state.params)

    try:
        jax.eval_shape(update, state)
    except TypeError as error:
        raise UserError(
            f"optimiser cannot be used in fit ({error}); expected one whose update takes gradients, state, parameters, "
            "and perhaps the loss as value, such as optax.adam(1e-3)"
        ) from None


def first_not_finite(metrics: dict[str, np.ndarray]) -> tuple[int, str] | None:
    """Finds the first iteration of a call whose loss or gradient norm is not finite.

    Returns:
      Its position in the call and a phrase for the message; None if all are finite.
    """
    for i, (loss, norm) in enumerate(zip(metrics["loss"], metrics["gradient_norm"], strict=True)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return i, f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
    return None


def _start(path: Any, leaf: Any) -> jax.Array:
    """A copy of a meta-parameter to start from."""
    dtype = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise UserError(f"params{jax.tree_util.keystr(path)} has dtype {dtype}; expected an array of floats")
    return jnp.array(leaf)


def fit(
    learner: MetaLearner,
    sampler: Sampler,
    optimiser: optax.GradientTransformation,
    *,
    iterations: int,
    tasks: int = 4,
    params: Any = None,
    seed: int = 0,
    callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    progress: bool = True,
) -> Any:
    """Meta-trains a learner and returns its meta-parameters.

    Iteration t, counted from 0, uses the episodes ``t * tasks`` to ``(t + 1) * tasks - 1`` of the sampler. As many
    local devices as divide ``tasks`` share them.

    Args:
      learner: the learner to train.
      sampler: the sampler of the training episodes.
      optimiser: an Optax transformation, such as ``optax.adam(1e-3)``.
      iterations: the number of outer iterations.
      tasks: the number of episodes in an iteration, the meta-batch.
      params: the meta-parameters to start from. If None, ``learner.init`` makes them with ``seed``.
      seed: the seed of the start, 0 to 4294967295.
      callback: a function that is called after each iteration with its number, from 1, and its metrics: ``"loss"``,
        ``"accuracy"``, ``"gradient_norm"`` and the learner's others, all floats. If it returns True, training ends.
      progress: whether to show a progress bar.

    Returns:
      The meta-parameters after the last iteration.

    Raises:
      UserError: an argument is of another kind or out of its range, the episodes have more classes than the model, or a
        loss or a gradient is not finite.
    """
    from tqdm.auto import tqdm

    check_learner(learner)
    check_sampler(sampler)
    check_optimiser(optimiser)
    check_whole("iterations", iterations)
    check_whole("tasks", tasks)
    check_seed(seed)
    if callback is not None:
        check_function("callback", callback, "a function (iteration, metrics), or None")
    check_way(learner, sampler.shape.way, sampler.store.images)
    devices = max(n for n in range(1, jax.local_device_count() + 1) if tasks % n == 0)
    mesh = parallel.task_mesh(devices)
    state = init_state(learner, optimiser, seed, np.asarray(sampler.store.images[:2]))
    if params is not None:
        check_params(params)
        params = jax.tree.map_with_path(_start, params)
        state = TrainState(params, with_running_averages(optimiser).init(params), state.iteration)
    _check_update(optimiser, state)
    state = parallel.put(mesh, state)
    program = train_program(learner.loss, optimiser, lambda source, *_: source, mesh, P(parallel.TASK_AXIS), 1)

    def draw(iteration):
        return sampler.batch(np.arange(iteration * tasks, (iteration + 1) * tasks))

    bar = tqdm(
        total=iterations, unit="it", disable=not progress, dynamic_ncols=True, desc=COMPILING[current_platform()]
    )
    with ThreadPoolExecutor(1) as pool, bar:
        upcoming = pool.submit(draw, 0)
        for iteration in range(1, iterations + 1):
            episodes = upcoming.result()
            if iteration < iterations:
                upcoming = pool.submit(draw, iteration)
            with on_mesh(mesh):
                state, metrics = program(state, parallel.put(mesh, episodes, P(parallel.TASK_AXIS)))
            metrics = jax.device_get(metrics)
            if broken := first_not_finite(metrics):
                lower = "lower the rate of the optimiser or the inner one"
                if iteration == 1:  # the optimiser has done nothing yet
                    lower = "lower the inner rate, or look for NaN or Inf in the start, the model and the images"
                raise UserError(f"{broken[1]} at iteration {iteration}; {lower}")
            if iteration == 1:
                bar.set_description("training")
                bar.unpause()
            record = {name: float(values[0]) for name, values in metrics.items()}
            bar.set_postfix({name: f"{record[name]:.3f}" for name in ("loss", "accuracy")}, refresh=False)
            bar.update()
            if callback and callback(iteration, record):
                break
    return jax.tree.map(jnp.asarray, jax.device_get(state.params))
