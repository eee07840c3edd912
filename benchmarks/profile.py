"""Where a training iteration spends its time, against what the machine could do at best.

    python -m benchmarks.profile --setting mini_1shot --out benchmarks/results/profile.json

Stages are programs of their own on the tasks of one iteration, on the devices that ``cxgrad_jax.main`` uses, timed in
turns: the whole iteration and the parts that it is made of. The outer gradient is what differentiating the loss costs
beyond the loss. The limit of a stage is the least time of its convolutions and matrix products, each as fast as the
machine's matrix product or as its operands and result can be copied, whichever is slower (a roofline); all other work
would then be free. Product and copy are timed in every round, and the fastest of each counts. ``of limit`` is limit /
time, with the median of the stage's times.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval
from jax.sharding import PartitionSpec as P

from benchmarks import ours
from benchmarks.interleaved import machine
from cxgrad_jax import batching, fitting, parallel, runtime
from cxgrad_jax.learners import apply_model
from cxgrad_jax.training import build


def least_seconds(function: Callable, *arguments: Any, rounds: int = 7) -> float:
    """The shortest of several runs of ``function``."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return min(times)


def ceilings() -> dict[str, float]:
    """Measured limits of the machine: float32 matrix product in GFLOP/s, copy in GB/s (read and written)."""
    size, length = 2048, 25_000_000
    options = {"xla_cpu_multi_thread_eigen": True} if jax.default_backend() == "cpu" else {}
    square, vector = jnp.ones((size, size)), jnp.ones(length)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"), compiler_options=options)
    copy = jax.jit(lambda x: x + 1, compiler_options=options)
    return {
        "product_gflops": 2 * size**3 / least_seconds(product, square) / 1e9,
        "copy_gbs": 2 * 4 * length / least_seconds(copy, vector) / 1e9,
    }


def cost(jaxpr, limits: dict[str, float]) -> np.ndarray:
    """``[GFLOP, GB, seconds at the limit]`` of the convolutions and matrix products of a jaxpr, loops included."""
    total = np.zeros(3)
    for equation in jaxpr.eqns:
        repeats = {"scan": lambda p: p["length"], "shard_map": lambda p: p["mesh"].size}.get(
            equation.primitive.name, lambda p: 1
        )(equation.params)
        for value in equation.params.values():
            if isinstance(value, (core.ClosedJaxpr, core.Jaxpr)):  # one class in the newest jax
                total += repeats * cost(getattr(value, "jaxpr", value), limits)
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            left, right, out = (variable.aval for variable in (*equation.invars[:2], equation.outvars[0]))
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                depth = np.prod([left.shape[i] for i in contracted])
            else:
                depth = right.size / right.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            gflop, gbytes = 2 * out.size * depth / 1e9, 4 * (left.size + right.size + out.size) / 1e9
            total += (gflop, gbytes, max(gflop / limits["product_gflops"], gbytes / limits["copy_gbs"]))
    return total


def live(jaxpr: core.Jaxpr) -> core.Jaxpr:
    """``jaxpr`` without the operations that no result needs, which the compiler leaves out too."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


def stages(config) -> dict[str, tuple[Callable, tuple]]:
    """The programs of the stages and their arguments, by name."""
    store, tasks = ours.random_store(config), config.train.meta_batch
    mesh = parallel.task_mesh(build.num_devices(config))
    learner, model = build.build_learner(config), build.build_model(config)
    optimiser = build.build_optimiser(config)
    current = parallel.put(mesh, fitting.init_state(learner, optimiser, 0, store.images[:2]))
    source = build.build_source(config, store, mesh, "device")
    arrays = next(source.arrays([(0, 1)]))
    at_once = batching.vectorised_tasks(tasks // mesh.size, config.parallel.tasks_per_chunk)
    spec, options = P(parallel.TASK_AXIS), runtime.compiler_options(mesh.size)

    def program(function, in_specs, out_specs):
        sharded = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
        return jax.jit(sharded, compiler_options=options)

    def over_tasks(function):
        def mapped(params, episodes):
            params = parallel.vary(params)
            return batching.map_tasks(lambda episode: function(params, episode), episodes, at_once)

        return program(mapped, (P(), spec), spec)

    def gradients(params, episodes):
        (loss, _), gradients = batching.mean_loss_and_gradients(learner.loss, parallel.vary(params), episodes, at_once)
        return parallel.mean_over_devices((loss, gradients))

    sampling = program(lambda arrays, i: source.draw(arrays, i, i), (source.spec, P()), spec)
    episodes = sampling(arrays, current.iteration)
    params, like = current.params, jax.tree.map(jnp.copy, current.params)
    return {
        "sampling": (sampling, (arrays, current.iteration)),
        "forward": (over_tasks(lambda p, e: apply_model(model, p["model"], e.query_images)), (params, episodes)),
        "inner gradients": (
            over_tasks(lambda p, e: learner.adapt(p, e.support_images, e.support_labels).model), (params, episodes)
        ),
        "loss": (over_tasks(lambda p, e: learner.loss(p, e)[0]), (params, episodes)),
        "loss and outer gradient": (program(gradients, (P(), spec), (P(), P())), (params, episodes)),
        "optimiser": (jax.jit(optimiser.update, compiler_options=options), (like, current.opt_state, params)),
    }  # fmt: skip


def main(flags: list[str]) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(prog="profile", description="Time a stage of a training iteration.")
    parser.add_argument("--setting", default="mini_1shot", help="a file of configs/ without .py (default mini_1shot)")
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args(flags)
    if arguments.out and not arguments.out.parent.is_dir():
        parser.error(f"--out: folder {arguments.out.parent} does not exist")
    before = machine()
    config = ours.prepare(arguments.setting, data__image_size=arguments.image_size)
    programs = {"whole iteration": (ours.training(config), ()), **stages(config)}
    seconds, measured = {name: [] for name in programs}, []
    for number in range(arguments.rounds + 1):
        measured.append(ceilings())
        for name, (function, inputs) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*inputs))
            if number:  # the first run compiles
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    limits = {name: max(found[name] for found in measured) for name in measured[0]}
    del programs["whole iteration"]
    costs = {name: cost(live(f.trace(*inputs).jaxpr.jaxpr), limits) for name, (f, inputs) in programs.items()}
    costs["whole iteration"] = costs["loss and outer gradient"]  # all of its convolutions and matrix products
    median["outer gradient"] = median["loss and outer gradient"] - median["loss"]
    costs["outer gradient"] = costs["loss and outer gradient"] - costs["loss"]
    print(f"limits: product {limits['product_gflops']:.0f} GFLOP/s, copy {limits['copy_gbs']:.1f} GB/s")
    print(f"{'stage':24} {'seconds':>8} {'share':>7} {'GFLOP':>8} {'GFLOP/s':>8} {'limit s':>8} {'of limit':>9}")
    result: dict[str, Any] = {"machine": before, "command": f"python -m benchmarks.profile {' '.join(flags)}"}
    result |= {"limits": limits, "stages": {}}
    for name in ("whole iteration", "sampling", "forward", "inner gradients", "outer gradient", "optimiser"):
        (gflop, gbytes, limit), took = costs[name], median[name]
        result["stages"][name] = {"seconds": took, "gflop": gflop, "gbytes": gbytes, "limit_seconds": limit}
        share = took / median["whole iteration"]
        limit_share = f"{limit / took:9.0%}" if limit > 1e-6 else f"{'':9}"
        print(f"{name:24} {took:8.4f} {share:7.1%} {gflop:8.1f} {gflop / took:8.0f} {limit:8.3f} {limit_share}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    runtime.restart_with_allocator()
    main(sys.argv[1:])
