"""MAML in plain PyTorch, to compare with: as the official code of this paper runs it, and as ``torch.func`` would.

    python -m benchmarks.torch_maml --device cuda --style loop

Conv-4, second order, five steps of SGD, Adam; random images of the given size. ``loop``: a task after the other, each
with ``torch.autograd.grad(create_graph=True)``, the way of the official MAML and CxGrad code. ``vmap``: all tasks at
once, ``torch.func.vmap`` over ``torch.func.grad``. Prints seconds an iteration and peak memory. Needs torch alone.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

WAY, QUERY = 5, 15


def parameters_of(torch, features: int, size: int, device: str) -> dict:
    """Kernels, scales and shifts of four blocks, and the head: uniform by Glorot, ones, zeros."""
    params, channels = {}, 3
    for i in range(4):
        kernel = torch.empty(features, channels, 3, 3, device=device)
        params |= {f"{i}/kernel": torch.nn.init.xavier_uniform_(kernel)}
        params |= {
            f"{i}/scale": torch.ones(features, device=device),
            f"{i}/shift": torch.zeros(features, device=device),
        }
        channels, size = features, size // 2
    head = torch.empty(WAY, features * size * size, device=device)
    return params | {"head": torch.nn.init.xavier_uniform_(head), "bias": torch.zeros(WAY, device=device)}


def logits_of(torch, params: dict, images):
    """Conv-4 with the statistics of the batch."""
    functional = torch.nn.functional
    for i in range(4):
        images = functional.conv2d(images, params[f"{i}/kernel"], padding=1)
        images = functional.batch_norm(images, None, None, params[f"{i}/scale"], params[f"{i}/shift"], training=True)
        images = functional.max_pool2d(functional.leaky_relu(images), 2)
    return functional.linear(images.flatten(1), params["head"], params["bias"])


def iteration_of(
    style: str, device: str, shot: int, size: int, tasks: int, features: int = 48, steps: int = 5, rate: float = 0.01
) -> Callable[[], float]:
    """One training iteration, which returns its loss: in ``style`` ``"loop"`` or ``"vmap"``."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    params = {name: p.requires_grad_() for name, p in parameters_of(torch, features, size, device).items()}
    adapted = [name for name in params if "kernel" in name or name in ("head", "bias")]
    adam = torch.optim.Adam(params.values(), lr=1e-3)

    def part(per_class):
        labels = torch.arange(WAY, device=device).repeat_interleave(per_class).expand(tasks, -1)
        return torch.rand(tasks, WAY * per_class, 3, size, size, device=device), labels

    (support, support_labels), (query, query_labels) = part(shot), part(QUERY)
    cross_entropy = torch.nn.functional.cross_entropy

    def by_loop():
        total = 0.0
        for task in range(tasks):
            fast = dict(params)
            for _ in range(steps):
                loss = cross_entropy(logits_of(torch, fast, support[task]), support_labels[task])
                gradients = torch.autograd.grad(loss, [fast[name] for name in adapted], create_graph=True)
                fast |= {name: fast[name] - rate * g for name, g in zip(adapted, gradients, strict=True)}
            total = total + cross_entropy(logits_of(torch, fast, query[task]), query_labels[task])
        return total / tasks

    def of_task(params, support, support_labels, query, query_labels):
        fast, fixed = ({n: p for n, p in params.items() if (n in adapted) == kind} for kind in (True, False))

        def support_loss(fast):
            return cross_entropy(logits_of(torch, fast | fixed, support), support_labels)

        for _ in range(steps):
            gradients = torch.func.grad(support_loss)(fast)
            fast = {name: fast[name] - rate * gradients[name] for name in fast}
        return cross_entropy(logits_of(torch, fast | fixed, query), query_labels)

    def by_vmap():
        each = torch.func.vmap(of_task, (None, 0, 0, 0, 0))
        return each(params, support, support_labels, query, query_labels).mean()

    def iteration():
        adam.zero_grad()
        loss = {"loop": by_loop, "vmap": by_vmap}[style]()
        loss.backward()
        adam.step()
        return float(loss.detach())

    return iteration


def main(flags: list[str]) -> int:
    """Measures and prints; the exit status."""
    parser = argparse.ArgumentParser(prog="torch_maml", description="MAML in plain PyTorch.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--style", default="loop", choices=("loop", "vmap"))
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--image_size", type=int, default=84)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--features", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="default", choices=("default", "highest"), help="default may be TF32")
    given = parser.parse_args(flags)
    import torch  # pyright: ignore[reportMissingImports]

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = given.precision == "default"
    torch.backends.cudnn.benchmark = True
    iteration = iteration_of(given.style, given.device, given.shot, given.image_size, given.tasks, given.features)
    start = time.perf_counter()
    iteration()
    first, seconds = time.perf_counter() - start, []
    for _ in range(given.rounds):
        start = time.perf_counter()
        loss = iteration()  # which waits for the loss
        seconds.append(time.perf_counter() - start)
    on_device = given.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_device else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"seconds": statistics.median(seconds), "first_seconds": first, "peak_bytes": peak, "loss": loss}
    print(json.dumps(result | {"torch": torch.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
