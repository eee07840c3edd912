"""MAML in PyTorch, to compare with: by a loop over the tasks, by ``torch.func``, and by learn2learn.

    python -m benchmarks.torch_maml --device cuda --style loop

Conv-4, second order, five steps of SGD, Adam; random images of the given size. ``loop``: a task after the other, each
with ``torch.autograd.grad(create_graph=True)``, the way of the official MAML and CxGrad code. ``vmap``: all tasks at
once, ``torch.func.vmap`` over ``torch.func.grad``. Prints seconds an iteration and peak memory. Needs torch alone.
``learn2learn_round`` is a round by learn2learn's ``MAML``, a task after the other.
"""

import argparse
import importlib
import json
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAY, QUERY = 5, 15
BLOCKS = 4
RATE, OUTER_RATE = 0.01, 1e-3


def parameters_of(features: int, size: int, device: str) -> dict[str, Any]:
    """Kernels, scales and shifts of four blocks, and the head: uniform by Glorot, ones, zeros."""
    import torch  # pyright: ignore[reportMissingImports]

    params, channels = {}, 3
    for i in range(BLOCKS):
        kernel = torch.empty(features, channels, 3, 3, device=device)
        params[f"{i}/kernel"] = torch.nn.init.xavier_uniform_(kernel)
        params[f"{i}/scale"] = torch.ones(features, device=device)
        params[f"{i}/shift"] = torch.zeros(features, device=device)
        channels, size = features, size // 2
    params["head"] = torch.nn.init.xavier_uniform_(torch.empty(WAY, features * size * size, device=device))
    params["bias"] = torch.zeros(WAY, device=device)
    return {name: value.requires_grad_() for name, value in params.items()}


def logits_of(params: dict[str, Any], images: Any) -> Any:
    """Conv-4 with the statistics of the batch: ``images [N, 3, H, W]`` give ``[N, way]``."""
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    for i in range(BLOCKS):
        images = functional.conv2d(images, params[f"{i}/kernel"], padding=1)
        scale, shift = params[f"{i}/scale"], params[f"{i}/shift"]
        images = functional.batch_norm(images, None, None, scale, shift, training=True)
        images = functional.max_pool2d(functional.leaky_relu(images), 2)
    return functional.linear(images.flatten(1), params["head"], params["bias"])


def is_adapted(name: str) -> bool:
    """Whether the inner loop changes a parameter: kernels and the head, as in this project's MAML."""
    return "scale" not in name and "shift" not in name


def adapted_by_loop(params: dict[str, Any], images: Any, labels: Any, steps: int, second_order: bool) -> dict[str, Any]:
    """The parameters after the inner loop, by ``torch.autograd.grad``."""
    import torch  # pyright: ignore[reportMissingImports]

    names, params = [name for name in params if is_adapted(name)], dict(params)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(logits_of(params, images), labels)
        gradients = torch.autograd.grad(loss, [params[name] for name in names], create_graph=second_order)
        params |= {name: params[name] - RATE * g for name, g in zip(names, gradients, strict=True)}
    return params


def adapted_by_func(params: dict[str, Any], images: Any, labels: Any, steps: int) -> dict[str, Any]:
    """The parameters after the inner loop, by ``torch.func.grad``."""
    import torch  # pyright: ignore[reportMissingImports]

    fast, fixed = ({n: p for n, p in params.items() if is_adapted(n) == kind} for kind in (True, False))

    def loss(fast):
        return torch.nn.functional.cross_entropy(logits_of(fast | fixed, images), labels)

    for _ in range(steps):
        gradients = torch.func.grad(loss)(fast)
        fast = {name: fast[name] - RATE * gradients[name] for name in fast}
    return fast | fixed


def random_episodes(device: str, shot: int, size: int, tasks: int) -> tuple[Any, Any, Any, Any]:
    """Support images ``[tasks, way*shot, 3, size, size]``, their labels, query images, and their labels."""
    import torch  # pyright: ignore[reportMissingImports]

    def part(per_class):
        labels = torch.arange(WAY, device=device).repeat_interleave(per_class).expand(tasks, -1)
        return torch.rand(tasks, WAY * per_class, 3, size, size, device=device), labels

    return (*part(shot), *part(QUERY))


def round_of(
    style: str, what: str, device: str, *, shot: int, size: int, tasks: int, features: int, steps: int
) -> Callable[[], float]:
    """One round on ``tasks`` random episodes, which returns their mean query loss and waits for it.

    Args:
      style: ``"loop"`` or ``"vmap"``.
      what: ``"training"``, an iteration of Adam on the query loss, or ``"adaptation"`` without an outer gradient.
      device: of PyTorch.
      shot: support images a class.
      size: pixels a side.
      tasks: of the round.
      features: filters of a block.
      steps: of the inner loop.
    """
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    params = parameters_of(features, size, device)
    adam, cross_entropy = torch.optim.Adam(params.values(), lr=OUTER_RATE), torch.nn.functional.cross_entropy

    episodes = random_episodes(device, shot, size, tasks)

    def by_loop(params):
        losses = []
        for support, support_labels, query, query_labels in zip(*episodes, strict=True):
            fast = adapted_by_loop(params, support, support_labels, steps, second_order=what == "training")
            losses.append(cross_entropy(logits_of(fast, query), query_labels))
        return torch.stack(losses).mean()

    def by_vmap(params):
        def task_loss(support, support_labels, query, query_labels):
            fast = adapted_by_func(params, support, support_labels, steps)
            return cross_entropy(logits_of(fast, query), query_labels)

        return torch.func.vmap(task_loss)(*episodes).mean()

    mean_loss = {"loop": by_loop, "vmap": by_vmap}[style]

    def adaptation():
        if style == "loop":
            return float(mean_loss(params).detach())
        with torch.no_grad():  # torch.func.grad takes its gradients all the same
            return float(mean_loss(params))

    def training():
        adam.zero_grad()
        loss = mean_loss(params)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return training if what == "training" else adaptation


def learn2learn_class(folder: Path) -> Any:
    """learn2learn's ``MAML``, read alone from its unpacked source distribution.

    The package does not build on Python 3.11, because of extensions for data sets that MAML does not need.
    """
    for name in ("learn2learn", "learn2learn.algorithms"):  # without the __init__.py of either, which need them
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder / name.replace(".", "/"))]
    return importlib.import_module("learn2learn.algorithms.maml").MAML


def learn2learn_round(
    folder: Path, what: str, *, shot: int, size: int, tasks: int, features: int, steps: int
) -> Callable[[], float]:
    """As ``round_of`` on a CPU, by learn2learn's ``clone`` and ``adapt``, which change scales and shifts too."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)

    def block(channels):
        norm = nn.BatchNorm2d(features, track_running_stats=False)
        return nn.Conv2d(channels, features, 3, padding=1, bias=False), norm, nn.LeakyReLU(), nn.MaxPool2d(2)

    layers = [layer for i in range(BLOCKS) for layer in block(features if i else 3)]
    head = nn.Linear(features * (size // 2**BLOCKS) ** 2, WAY)
    model = learn2learn_class(folder)(
        nn.Sequential(*layers, nn.Flatten(), head), lr=RATE, first_order=what != "training"
    )
    adam, cross_entropy = torch.optim.Adam(model.parameters(), lr=OUTER_RATE), nn.functional.cross_entropy
    episodes = random_episodes("cpu", shot, size, tasks)

    def one_round():
        losses = []
        for support, support_labels, query, query_labels in zip(*episodes, strict=True):
            fast = model.clone()
            for _ in range(steps):
                fast.adapt(cross_entropy(fast(support), support_labels))
            with torch.set_grad_enabled(what == "training"):
                losses.append(cross_entropy(fast(query), query_labels))
        loss = torch.stack(losses).mean()
        if what == "training":
            adam.zero_grad()
            loss.backward()
            adam.step()
        return float(loss.detach())

    return one_round


def main(flags: list[str]) -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(prog="torch_maml", description="MAML in plain PyTorch.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--style", default="loop", choices=("loop", "vmap"))
    parser.add_argument("--what", default="training", choices=("training", "adaptation"))
    parser.add_argument("--precision", default="default", choices=("default", "highest"), help="default may be TF32")
    parser.add_argument("--rounds", type=int, default=5)
    for name, value in (("shot", 1), ("image_size", 84), ("tasks", 4), ("features", 48), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args(flags)
    import torch  # pyright: ignore[reportMissingImports]

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = given.precision == "default"
    torch.backends.cudnn.benchmark = True
    sizes = {"size": given.image_size, "shot": given.shot, "tasks": given.tasks}
    one_round = round_of(given.style, given.what, given.device, features=given.features, steps=given.steps, **sizes)
    seconds = []
    for _ in range(given.rounds + 1):
        start = time.perf_counter()
        loss = one_round()
        seconds.append(time.perf_counter() - start)
    on_card = given.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_card else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    first, *others = seconds
    found = {"seconds": statistics.median(others), "first_seconds": first, "peak_bytes": peak, "loss": loss}
    print(json.dumps(found | {"torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
