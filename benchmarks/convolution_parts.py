"""Times the parts of a GPU's convolution alone, in the library's way and in others: what decided its form.

    python -m benchmarks.convolution_parts --out FILE.json
    python -m benchmarks.convolution_parts --only patches
    python -m benchmarks.convolution_parts --small        8 pixels, 4 filters: whether it runs, no measurement

The sizes are those of the layers of Conv-4 with 48 filters at 84×84, for 4 tasks with 75 query or 5 support images
each. It needs the library alone, as ``benchmarks.on_device`` does. Microseconds are of one call for all tasks: the
least mean of three series of calls. A call takes some 40 µs of the host, so that shorter ones are not seen.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cxgrad_jax.models import _convolution

Array = jax.Array
CALLS = 30  # of a series


def shifted(x: Array) -> Array:
    """The patches of ``x [N, H, W, C]``, ``[N*H*W, 9*C]``: nine shifted maps beside each other."""
    height, width, x = x.shape[1], x.shape[2], with_margin(x)
    maps = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(maps, axis=-1).reshape(-1, 9 * x.shape[-1])


def columns_then_rows(x: Array) -> Array:
    """The same: three columns beside each other, which are kept, then three rows of those."""
    height, width, x = x.shape[1], x.shape[2], with_margin(x)
    x = lax.optimization_barrier(jnp.concatenate([x[:, :, j : j + width] for j in range(3)], axis=-1))
    return jnp.concatenate([x[:, i : i + height] for i in range(3)], axis=-1).reshape(-1, 3 * x.shape[-1])


def with_margin(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def product(patches: Array, kernel: Array) -> Array:
    """The convolution of patches that are there."""
    return jnp.matmul(patches, kernel.reshape(-1, kernel.shape[-1]), precision="highest")


def kernel_gradient(parts: int, patches: Array, g: Array) -> Array:
    """The kernel gradient of patches that are there: the sum of a product for each part of the positions."""
    patches, g = (values.reshape(parts, -1, values.shape[-1]) for values in (patches, g))
    return jnp.sum(jnp.matmul(patches.swapaxes(1, 2), g, precision="highest"), axis=0)


def convolution_of_the_compiler(x: Array, kernel: Array) -> Array:
    """XLA's own, which is cuDNN's on a GPU."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


def parts(small: bool) -> Iterator[tuple[str, Callable[..., Array], tuple[Array, ...]]]:
    """Names, functions of one task, and their arguments for all tasks."""
    tasks, filters, library = 4, 4 if small else 48, partial(_convolution._patches, size=3)
    for kind, images in (("query", 75), ("support", 5)):
        for side, channels in ((84, 3), (42, filters), (21, filters), (10, filters)):
            images, side = (2, 8) if small else (images, side)
            name = f"{kind}, {side}×{side}×{channels}"
            x, g, kernel = (
                jax.random.normal(jax.random.key(0), (tasks, *shape))
                for shape in ((images, side, side, channels), (images, side, side, filters), (3, 3, channels, filters))
            )
            for way, make in {
                "gathered (the library's)": library,
                "shifted": shifted,
                "columns, then rows": columns_then_rows,
            }.items():
                yield f"patches {way}, {name}", make, (x,)
            patches = jax.jit(jax.vmap(library))(x)
            yield f"product, {name}", product, (patches, kernel)
            yield f"convolution of the compiler, {name}", convolution_of_the_compiler, (x, kernel)
            positions = _convolution.POSITIONS_A_FILTER * filters
            ours = images * side // _convolution._lines_of_a_part(images * side, side, positions)
            for number in dict.fromkeys((ours, images, 1)):
                ways = f"{number} parts" + (" (the library's)" if number == ours else "")
                yield f"kernel gradient in {ways}, {name}", partial(kernel_gradient, number), (patches, g)


def measured(function: Callable[..., Array], arrays: tuple[Array, ...]) -> dict[str, Any]:
    """Compiles a part, vectorised over tasks, and times it."""
    compiled = jax.jit(jax.vmap(function)).lower(*arrays).compile()
    jax.block_until_ready(compiled(*arrays))
    series = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(CALLS):
            outcome = compiled(*arrays)
        jax.block_until_ready(outcome)
        series.append((time.perf_counter() - start) / CALLS)
    return {"microseconds": min(series) * 1e6}


def main(flags: list[str]) -> int:
    """Measures, prints and writes; the exit status."""
    parser = argparse.ArgumentParser(prog="convolution_parts", description="Parts of a GPU's convolution alone.")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--only", default="", metavar="REGEX", help="parts whose name it finds")
    parser.add_argument("--small", action="store_true", help="8 pixels, 4 filters: whether it runs")
    given = parser.parse_args(flags)
    if given.out and not given.out.parent.is_dir():
        parser.error(f"--out: folder {given.out.parent} does not exist")
    records = []
    for name, function, arrays in parts(given.small):
        if re.search(given.only, name):
            records.append({"part": name, **measured(function, arrays)})
            print(f"{name:70} {records[-1]['microseconds']:8.1f} µs", flush=True)
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}" + (", a small size, which is not a measurement" if given.small else ""))
    if given.out:
        described = {"device": device, "jax": jax.__version__, "small": given.small}
        given.out.write_text(json.dumps({**described, "records": records}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
