"""The project against the official PyTorch code (a clone of shlee625/CxGrad), on this machine, interleaved.

    python -m benchmarks.versus_official --official PATH --setting mini_1shot --rounds 5 --out FILE.json

Each side is a process of its own. After a warm-up the two take turns: one round of ours, one of the official code, so
that both see the same machine. ``--what training`` times outer iterations: ours is the compiled block that
``cxgrad_jax.main`` runs (episodes drawn and gathered inside), theirs ``run_train_iter`` on ready arrays (their data
loading is left out). ``--what adaptation`` times adaptation and prediction of test episodes.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

WAY, QUERY, TEST_EPISODES = 5, 15, 600
OFFICIAL_CONFIGS = {
    f"mini_{shot}shot": f"experiment_config/mini_imagenet_5way_{shot}shot/CxGrad_4conv.json" for shot in (1, 5)
}


def ours(arguments: argparse.Namespace) -> tuple[Callable[[], Any], dict[str, str]]:
    """One round of this project, compiled and warm, and the versions in use."""
    from cxgrad_jax import runtime

    runtime.prepare()
    import jax

    from cxgrad_jax import configuration, evaluate, parallel, state, train
    from cxgrad_jax.data.store import ImageStore
    from cxgrad_jax.main import load_config

    config = load_config(str(Path(__file__).parents[1] / "configs" / f"{arguments.setting}.py"))
    config.data.image_size = arguments.image_size
    shape, tasks = configuration.episode_shape(config), config.train.meta_batch
    classes, size = 16, 2 * (shape.shot + shape.query)
    pixels = (classes * size, arguments.image_size, arguments.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, pixels, dtype=np.uint8)
    offsets = np.arange(0, classes * size + 1, size, dtype=np.int32)
    store = ImageStore(images, offsets, tuple(map(str, range(classes))))
    mesh = parallel.task_mesh(1)
    learner, optimiser = configuration.build_learner(config), state.outer_optimiser(config.train.learning_rate)
    current = parallel.put(mesh, state.init_state(learner, optimiser, 0, images[:2]))
    versions = {"jax": jax.__version__}

    if arguments.what == "adaptation":
        evaluator = evaluate.make_evaluator(learner, store, shape, 0, "test", arguments.episodes, mesh)
        return lambda: evaluator(current.params), versions

    draw, spec, sources = train.device_source(store, shape, 0, tasks, mesh)
    chunk = config.parallel.tasks_per_chunk or parallel.default_chunk(tasks)
    block = train.make_train_block(
        learner.loss, optimiser, draw, mesh, spec, 1, chunk, config.train.task_reduction
    )  # fmt: skip

    def iteration():
        nonlocal current
        current, metrics = block(current, next(sources))
        jax.device_get(metrics)

    return iteration, versions


def official(arguments: argparse.Namespace) -> tuple[Callable[[], Any], dict[str, str]]:
    """One round of the official code on random images, warm, and the versions in use."""
    root = Path(arguments.official)
    sys.path.insert(0, str(root))
    import torch
    from few_shot_learning_system import MAMLFewShotClassifier  # pyright: ignore[reportMissingImports]

    fields = json.loads((root / OFFICIAL_CONFIGS[arguments.setting]).read_text())
    size = arguments.image_size
    fields |= {"use_cuda": False, "seed": 0, "image_height": size, "image_width": size}
    model = MAMLFewShotClassifier((2, 3, size, size), torch.device("cpu"), SimpleNamespace(**fields))
    random, tasks, shot = np.random.default_rng(0), fields["batch_size"], fields["num_samples_per_class"]

    def images(per_class):
        return random.random((tasks, WAY, per_class, 3, size, size), dtype=np.float32)

    def labels(per_class):
        return np.broadcast_to(np.arange(WAY)[:, None], (tasks, WAY, per_class)).copy()

    batch = (images(shot), images(QUERY), labels(shot), labels(QUERY))
    versions = {"torch": torch.__version__}
    if arguments.what == "adaptation":
        batches = arguments.episodes // tasks
        return lambda: [model.run_validation_iter(batch, 0) for _ in range(batches)], versions
    return lambda: model.run_train_iter(batch, 0, 0), versions


SIDES = {"ours": ours, "official": official}


def work(arguments: argparse.Namespace) -> None:
    """A worker: says when it is warm, then runs a round for every line that it reads, and last tells its peak memory."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print must not mix with the answers

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    start = time.perf_counter()
    one_round, versions = SIDES[arguments.side](arguments)
    one_round()
    answer(ready=time.perf_counter() - start, versions=versions)
    for _ in sys.stdin:
        start = time.perf_counter()
        one_round()
        seconds = time.perf_counter() - start
        answer(seconds=seconds, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Worker:
    """A side in a process of its own."""

    def __init__(self, side: str, arguments: list[str]):
        command = [sys.executable, "-m", "benchmarks.versus_official", *arguments, "--side", side]
        self._log = Path(os.devnull).open("w") if "--quiet" in arguments else None
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log, text=True)
        self.side, self.seconds, self.peak_mb = side, [], 0.0
        self.versions = self._read()["versions"]

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit(f"versus_official: the {self.side} side failed with status {self._process.wait()}")
        return json.loads(line)

    def round(self) -> None:
        """Lets the side run once."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        self.seconds.append(answer["seconds"])
        self.peak_mb = answer["peak_mb"]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def machine() -> dict[str, Any]:
    """Processor, cores and memory, and how busy the machine is with other work."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name")]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"processor": model, "cores": os.cpu_count(), "memory_gb": round(memory, 1), "load": os.getloadavg()[0]}


def compare(arguments: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """Both sides in turns, and what came of it."""
    started = machine()
    workers = {side: Worker(side, flags) for side in SIDES}
    for number in range(arguments.rounds):
        for worker in workers.values():
            worker.round()
        print(f"round {number + 1}: " + ", ".join(f"{w.side} {w.seconds[-1]:.2f} s" for w in workers.values()))
    for worker in workers.values():
        worker.close()
    median = {side: statistics.median(worker.seconds) for side, worker in workers.items()}
    result: dict[str, Any] = {
        "setting": arguments.setting,
        "what": arguments.what,
        "ratio_median": median["official"] / median["ours"],
        "ratio_min": min(workers["official"].seconds) / min(workers["ours"].seconds),
    }
    for side, worker in workers.items():
        result |= {
            f"{side}_seconds": median[side],
            f"{side}_seconds_min": min(worker.seconds),
            f"{side}_rounds": worker.seconds,
            f"{side}_peak_mb": worker.peak_mb,
        }
        if arguments.what == "adaptation":
            result[f"{side}_seconds_600_episodes_scaled"] = median[side] * TEST_EPISODES / arguments.episodes
    if arguments.what == "adaptation":
        result["episodes_per_round"] = arguments.episodes
    versions = {name: value for worker in workers.values() for name, value in worker.versions.items()}
    command = "python -m benchmarks.versus_official " + " ".join(flags)
    return result | {"machine": started, "versions": versions, "image_size": arguments.image_size, "command": command}


def main(flags: list[str]) -> int:
    """Runs the comparison; 2 where the official code or torch is missing."""
    parser = argparse.ArgumentParser(description="Ours against the official PyTorch code, interleaved.")
    parser.add_argument("--official", required=True, help="a clone of github.com/shlee625/CxGrad")
    parser.add_argument("--setting", choices=list(OFFICIAL_CONFIGS), default="mini_1shot")
    parser.add_argument("--what", choices=["training", "adaptation"], default="training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=12, help="test episodes a round, a multiple of 4")
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--quiet", action="store_true", help="drop what the libraries print")
    parser.add_argument("--out", help="JSON file")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args(flags)
    if not (Path(arguments.official) / OFFICIAL_CONFIGS[arguments.setting]).is_file():
        print(f"versus_official: {arguments.official} is no clone of shlee625/CxGrad", file=sys.stderr)
        return 2
    if importlib.util.find_spec("torch") is None:
        print("versus_official: torch is missing; pip install torch", file=sys.stderr)
        return 2
    if arguments.side:
        work(arguments)
        return 0
    result = compare(arguments, flags)
    for key in ("ratio_median", "ratio_min", "ours_seconds", "official_seconds", "ours_peak_mb", "official_peak_mb"):
        print(f"{key:18} {result[key]:.2f}")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
