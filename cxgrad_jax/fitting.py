"""Meta-training: outer iterations of an Optax optimiser on the query loss.

params = cxgrad_jax.fit(learner, sampler, optax.adam(1e-3), iterations=500)
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from cxgrad_jax import batching, parallel
from cxgrad_jax.episodes import Episode, Sampler
from cxgrad_jax.errors import UserError
from cxgrad_jax.keys import purpose_key
from cxgrad_jax.learners import MetaLearner, with_running_averages
from cxgrad_jax.learners._statistics import trained, with_statistics_of


class TrainState(NamedTuple):
    """Everything that an outer iteration changes, and all that a checkpoint holds.

    Attributes:
      params: meta-parameters, the pytree of ``MetaLearner.init``.
      opt_state: of the optimiser, which has none for running averages.
      iteration: int32 scalar, outer iterations done.
    """

    params: Any
    opt_state: optax.OptState
    iteration: jax.Array


def init_state(learner: MetaLearner, optimiser: optax.GradientTransformation, seed: int, images: Any) -> TrainState:
    """The state before the first iteration: a pure function of the seed and of the shape of ``images [N, H, W, C]``."""

    def init(images):
        params = learner.init(purpose_key(seed, "init"), images)
        return TrainState(params, with_running_averages(optimiser).init(params), jnp.zeros((), jnp.int32))

    return jax.jit(init)(images)


def outer_adam(
    learning_rate: float, decay_every: int = 0, decay_factor: float = 1.0, gradient_clamp: float = 0.0
) -> optax.GradientTransformation:
    """Adam as the official code runs it: betas 0.9 and 0.999, eps 1e-8, no weight decay.

    Args:
      learning_rate: at the start.
      decay_every: iterations after each of which the rate is multiplied by ``decay_factor``; 0 for never.
      decay_factor: of the rate.
      gradient_clamp: every entry of the gradient is first cut to ± this; 0 for no cut.
    """
    rate: Any = learning_rate
    if decay_every:
        rate = optax.exponential_decay(learning_rate, decay_every, decay_factor, staircase=True)
    adam = optax.adam(rate)
    return optax.chain(optax.clip(gradient_clamp), adam) if gradient_clamp else adam


def train_program(
    loss: batching.Loss,
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
      loss: ``MetaLearner.loss``.
      optimiser: of the outer loop.
      draw: ``(source, iteration, i) -> episodes`` of one device, inside the compiled program. ``iteration`` is the
        outer one and ``i`` counts from 0 in this call.
      mesh: with a task axis.
      source_spec: how the source lies on the mesh.
      num_iterations: outer iterations in one call.
      at_once: tasks of a device that are vectorised together; 0 for what is fast on the platform.
      task_reduction: ``"mean"`` or ``"sum"`` of the gradients over tasks.

    Returns:
      ``(state, source) -> (state, metrics)``. The metrics are arrays ``[num_iterations]``. The state is donated.
    """

    optimiser = with_running_averages(optimiser)

    def iterate(source, state: TrainState, i):
        episodes, params = draw(source, state.iteration, i), parallel.vary(state.params)
        tasks = jax.tree.leaves(episodes)[0].shape[0]

        def loss_at_iteration(params, episode):
            return loss(params, episode, iteration=state.iteration)

        (value, metrics), gradients = batching.mean_loss_and_gradients(
            loss_at_iteration, params, episodes, batching.vectorised_tasks(tasks, at_once)
        )
        value, metrics, gradients = parallel.mean_over_devices((value, metrics, gradients))
        if task_reduction == "sum":  # of running averages it is the mean in any case
            total = jax.tree.map(lambda g: g * (tasks * mesh.devices.size), gradients)
            gradients = with_statistics_of(total, gradients)
        return updated(optimiser, state, value, metrics, gradients)

    def program(state, source):
        return jax.lax.scan(lambda state, i: iterate(source, state, i), state, jnp.arange(num_iterations))

    sharded = jax.shard_map(program, mesh=mesh, in_specs=(P(), source_spec), out_specs=(P(), P()))
    return parallel.compiled_for(mesh, sharded, donate_argnums=0)


def updated(
    optimiser: optax.GradientTransformation, state: TrainState, loss: jax.Array, metrics: dict[str, Any], gradients: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after an outer iteration with these gradients, and all its metrics."""
    metrics = {"loss": loss, **metrics, "gradient_norm": optax.tree.norm(trained(gradients))}
    # Optax mixes dtypes and ranks, which a user may have forbidden to JAX.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state, state.iteration + 1), metrics


def first_not_finite(metrics: dict[str, np.ndarray]) -> tuple[int, str] | None:
    """Where the loss or the gradient's norm is not finite, the first position in the call and a word for the value."""
    for i, (loss, norm) in enumerate(zip(metrics["loss"], metrics["gradient_norm"], strict=True)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return i, f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
    return None


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
      learner: to train.
      sampler: of the training episodes.
      optimiser: an Optax transformation, such as ``optax.adam(1e-3)``.
      iterations: outer iterations.
      tasks: episodes of an iteration, the meta-batch.
      params: where to start; None for ``learner.init`` with ``seed``.
      seed: of the start.
      callback: called after each iteration with its number, from 1, and its metrics: ``"loss"``, ``"accuracy"``,
        ``"gradient_norm"`` and the learner's others. The training ends where it returns True.
      progress: whether to show a progress bar.

    Raises:
      UserError: a number that is not positive, or a loss that is not finite.
    """
    from tqdm.auto import tqdm

    for name, value in (("iterations", iterations), ("tasks", tasks)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} is {value!r}; expected a whole number, at least 1")
    devices = max(n for n in range(1, jax.local_device_count() + 1) if tasks % n == 0)
    mesh = parallel.task_mesh(devices)
    state = init_state(learner, optimiser, seed, np.asarray(sampler.store.images[:2]))
    if params is not None:
        params = jax.tree.map(jnp.array, params)
        state = TrainState(params, with_running_averages(optimiser).init(params), state.iteration)
    state = parallel.put(mesh, state)
    program = train_program(learner.loss, optimiser, lambda source, *_: source, mesh, P(parallel.TASK_AXIS), 1)

    def draw(iteration):
        return sampler.batch(np.arange(iteration * tasks, (iteration + 1) * tasks))

    bar = tqdm(total=iterations, unit="it", disable=not progress, dynamic_ncols=True, desc="compiling")
    with ThreadPoolExecutor(1) as pool, bar:
        upcoming = pool.submit(draw, 0)
        for iteration in range(1, iterations + 1):
            episodes = upcoming.result()
            if iteration < iterations:
                upcoming = pool.submit(draw, iteration)
            state, metrics = program(state, parallel.put(mesh, episodes, P(parallel.TASK_AXIS)))
            metrics = jax.device_get(metrics)
            if broken := first_not_finite(metrics):
                raise UserError(
                    f"{broken[1]} at iteration {iteration}; lower the rate of the optimiser or the inner one"
                )
            if iteration == 1:
                bar.set_description("training")
                bar.unpause()
            record = {name: float(values[0]) for name, values in metrics.items()}
            bar.set_postfix({name: f"{record[name]:.3f}" for name in ("loss", "accuracy")}, refresh=False)
            bar.update()
            if callback and callback(iteration, record):
                break
    return jax.tree.map(jnp.asarray, jax.device_get(state.params))
