"""What a compiled program would need at least on a device that is not here: a count of its operations. No speed.

The text of an optimised program tells every operation that the device starts, its operands and results, and how often
the loop around it runs. An operation takes at least as long as its arrays move between the memory and the chip, or its
products take on the matrix units, whichever is longer; and no less than a start. Arrays of a TPU count with the padding
of their tiles. On a GPU, whose convolutions multiply padding as well, it is counted. Not counted: how far a real
operation stays behind its limit, which for convolutions in groups is far.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8, "f64": 8, "c64": 8}
NO_WORK = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
    "domain", "opt-barrier", "add-dependency",
}  # fmt: skip
READS_A_PART = {"dynamic-slice", "slice", "gather"}


class Limits(NamedTuple):
    """Of a device: FLOP/s by precision of float32 products, bytes/s of its memory, seconds to start an operation, and
    whether its convolutions multiply padding.

    Sources: the data sheets of NVIDIA H100 and H200 SXM5 (TF32 without sparsity; float32 outside the matrix units) and
    of TPU v5e and v6e (bfloat16; "high" takes three passes, "highest" six). The seconds of a start are an assumption.
    """

    flops: dict[str, float]
    bandwidth: float
    start: float
    padding: bool


LIMITS = {
    "h100": Limits({"default": 495e12, "high": 495e12, "highest": 67e12}, 3.35e12, 2e-6, True),
    "h200": Limits({"default": 495e12, "high": 495e12, "highest": 67e12}, 4.8e12, 2e-6, True),
    "v5e": Limits({"default": 197e12, "high": 197e12 / 3, "highest": 197e12 / 6}, 0.82e12, 0.0, False),
    "v6e": Limits({"default": 918e12, "high": 918e12 / 3, "highest": 918e12 / 6}, 1.64e12, 0.0, False),
}
CLOCKS = {"v5e": 1.5e9, "v6e": 1.75e9}  # cycles/s, from the peak and the size of the matrix units


class Operation(NamedTuple):
    """An operation that a device starts.

    Attributes:
      kind: HLO's name, or the target of a custom call.
      times: how often the program runs it.
      flops: of one run, in products of matrices and convolutions.
      moved: bytes of one run, to and from the memory.
      cycles: of one run, by the compiler's own estimate, where it makes one.
      precision: of the products, ``"default"``, ``"high"`` or ``"highest"``.
    """

    kind: str
    times: int
    flops: float
    moved: int
    cycles: int
    precision: str


class _Line(NamedTuple):
    name: str
    type: str
    opcode: str
    operands: list[str]  # names; of a parameter its number
    rest: str  # the attributes
    is_root: bool


Computations = dict[str, dict[str, _Line]]


def summary(text: str, device: str, iterations: int) -> dict[str, float]:
    """Of one outer iteration of a program of ``iterations``: operations started, GFLOP, GB moved, milliseconds.

    ``least_ms`` is the sum of every operation's least time, and ``compiler_ms`` the compiler's own estimate (TPU alone,
    else 0).

    Args:
      text: of the optimised program.
      device: a key of ``LIMITS``.
      iterations: in one call of the program.
    """
    limits = LIMITS[device]
    found = list(operations(text, limits.padding))

    def in_an_iteration(values):
        return sum(op.times * value for op, value in zip(found, values, strict=True)) / iterations

    seconds = [max(limits.start, op.moved / limits.bandwidth, op.flops / limits.flops[op.precision]) for op in found]
    return {
        "operations": round(in_an_iteration([1] * len(found))),
        "gflop": round(in_an_iteration([op.flops for op in found]) / 1e9, 1),
        "gbytes": round(in_an_iteration([op.moved for op in found]) / 1e9, 2),
        "least_ms": round(in_an_iteration(seconds) * 1e3, 2),
        "compiler_ms": round(in_an_iteration([op.cycles for op in found]) / CLOCKS.get(device, math.inf) * 1e3, 2),
    }


def host_starts(thunks: str, steps: int) -> int:
    """How often the host starts something in an outer iteration of a program for a GPU: operations and CUDA graphs.

    Args:
      thunks: XLA's ``thunk_sequence_after_thunk_passes.txt`` of a program whose outermost loop are the iterations.
      steps: how often a loop within an iteration runs.
    """
    starts, around = 0, []  # around: depth in the text and kind of what holds the line
    for line in re.finditer(r"^( *)\d+: (k\w+)", thunks, re.M):
        depth, kind = len(line[1]), line[2]
        around = [(d, k) for d, k in around if d < depth]
        loops = sum(k == "kWhile" for _, k in around)
        if loops and all(k != "kCommandBuffer" for _, k in around):
            starts += steps if loops > 1 else 1
        around.append((depth, kind))
    return starts


def operations(text: str, padding: bool) -> Iterator[Operation]:
    """Every operation of an optimised program that a device starts; ``padding`` as in ``Limits``."""
    entry, computations = parsed(text)
    yield from _run(computations, entry, 1, padding)


def parsed(text: str) -> tuple[str, Computations]:
    """The name of the entry computation, and the lines of each computation by name."""
    entry, computations, lines = "", {}, {}
    for line in text.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            lines = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif match := re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line):
            kind, rest = _split(line[match.end() :])
            opcode, _, rest = rest.strip().partition("(")
            operands, rest = _split("(" + rest)
            names = re.findall(r"%([\w.\-]+)", operands) or [operands.strip("()")]
            lines[match[2]] = _Line(match[2], kind, opcode, names, rest, bool(match[1]))
    return entry, computations


def _split(text: str) -> tuple[str, str]:
    """The text up to the end of its first pair of parentheses if it begins with one, else to the first blank."""
    if not text.startswith("("):
        first, _, rest = text.partition(" ")
        return first, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return text[: i + 1], text[i + 1 :]
    return text, ""


def _run(computations: Computations, name: str, times: int, padding: bool) -> Iterator[Operation]:
    lines = computations[name]
    for line in lines.values():
        called = re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", line.rest)
        if line.opcode == "while":
            yield from _run(computations, called[0], times * _trips(computations, line), padding)
        elif line.opcode in ("call", "async-start"):
            yield from _run(computations, called[0], times, padding)
        elif not (
            line.opcode in NO_WORK or line.opcode.endswith(("-done", "-update")) or "AllocateBuffer" in line.rest
        ):
            inner = computations[called[0]] if line.opcode == "fusion" else {}
            cycles = re.search(r'estimated_cycles":"(\d+)"', line.rest)
            target = re.search(r'custom_call_target="([^"]*)"', line.rest)
            products = list(_products(computations, lines, line))
            yield Operation(
                target[1] if target else line.opcode,
                times,
                sum(flops(product, among, padding) for product, among in products),
                _moved(line, lines, inner),
                int(cycles[1]) if cycles and int(cycles[1]) < 2**40 else 0,
                next((_precision(product) for product, _ in products), "highest"),
            )


def _trips(computations: Computations, loop: _Line) -> int:
    """How often a loop runs: as the compiler notes it, else up to the number that its condition compares with."""
    if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(noted[1])
    condition = computations[re.findall(r"condition=%?([\w.\-]+)", loop.rest)[0]]
    constants = [line.operands[0] for line in condition.values() if line.opcode == "constant"]
    return int(constants[0]) if len(constants) == 1 and constants[0].isdigit() else 1


def _products(computations: Computations, lines: dict[str, _Line], line: _Line) -> Iterator[tuple[_Line, dict]]:
    """The convolutions and matrix products of an operation, and the lines among which each lies."""
    if line.opcode == "fusion":
        inner = computations[re.findall(r"calls=%?([\w.\-]+)", line.rest)[0]]
        for each in inner.values():
            yield from _products(computations, inner, each)
    elif line.opcode in ("convolution", "dot") or re.search(r'custom_call_target="__cu(?:dnn\$conv|blas)', line.rest):
        yield line, lines


def _precision(line: _Line) -> str:
    found = re.search(r'operand_precision"?[=:][{\[]"?(\w+)', line.rest)
    return found[1].lower() if found else "default"


def flops(line: _Line, lines: dict[str, _Line], padding: bool) -> float:
    """Of a convolution or a product of matrices, two for a multiplication with its addition."""
    left, right = (_shape(lines[name].type) for name in line.operands[:2])
    out = _shape(line.type)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    if not labels:
        contracted = re.search(r'lhs_contracting_dim(?:ension)?s"?[=:][{\[]([^}\]]*)', line.rest)
        return (
            2
            * math.prod(out)
            * math.prod(left[int(i)] for i in re.findall(r"\d+", contracted[1] if contracted else ""))
        )
    kernel, maps = right, out  # of the convolution, whose gradients cost the same
    if "BackwardFilter" in line.rest:
        kernel, maps = out, right
    elif "BackwardInput" in line.rest:
        maps = left
    total = 2 * math.prod(maps) * math.prod(kernel) / kernel[labels[2].index("o")]
    if padding or "custom_call_target" in line.rest:
        return total
    for axis in (letter for letter in labels[3] if letter.isdigit()):
        total *= _share_inside(line.rest, int(axis), left[labels[1].index(axis)], out[labels[3].index(axis)])
    return total


def _share_inside(attributes: str, axis: int, length: int, positions: int) -> float:
    """The share of a convolution's products along an axis that are neither with padding nor with dilation's zeros."""
    window = dict(re.findall(r"(\w+)=([\d_x]+)", re.findall(r"window=\{([^}]*)\}", attributes)[0]))
    size = int(window["size"].split("x")[axis])
    before = int(window["pad"].split("x")[axis].split("_")[0]) if "pad" in window else 0
    stride, between, apart = (
        int(window[name].split("x")[axis]) if name in window else 1 for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    places = ((out * stride + tap * apart - before) for out in range(positions) for tap in range(size))
    inside = sum(0 <= place <= (length - 1) * between and place % between == 0 for place in places)
    return inside / (positions * size)


def _moved(line: _Line, lines: dict[str, _Line], inner: dict[str, _Line]) -> int:
    """Bytes that an operation reads and writes; of what it takes a part of, or changes a part of, that part."""
    operands = {name: num_bytes(lines[name].type) for name in line.operands if name in lines}
    if inner:
        for each in inner.values():
            if each.opcode == "parameter":
                name = line.operands[int(each.operands[0])]
                operands[name] = min(operands[name], _read(inner, each))
        return sum(operands.values()) + sum(_written(inner, result) for result in _results(inner))
    if line.opcode in READS_A_PART:
        return 2 * num_bytes(line.type)
    if line.opcode == "dynamic-update-slice":
        return 2 * num_bytes(lines[line.operands[1]].type)
    return sum(operands.values()) + num_bytes(line.type)


def _read(inner: dict[str, _Line], value: _Line) -> int:
    """Bytes of a value that the lines of a fusion read."""
    total = 0
    for line in inner.values():
        for position, operand in enumerate(line.operands):
            if operand != value.name or line.opcode == "parameter":
                continue
            if line.opcode == "bitcast":
                total += _read(inner, line)
            elif line.opcode in READS_A_PART:
                total += num_bytes(line.type)
            elif line.opcode != "dynamic-update-slice" or position:
                total += num_bytes(value.type)
    return total


def _results(inner: dict[str, _Line]) -> list[_Line]:
    root = next(line for line in inner.values() if line.is_root)
    return [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _written(inner: dict[str, _Line], result: _Line) -> int:
    origin = result
    while origin.opcode == "bitcast" and origin.operands[0] in inner:
        origin = inner[origin.operands[0]]
    return num_bytes(inner[origin.operands[1]].type if origin.opcode == "dynamic-update-slice" else result.type)


def _shape(kind: str) -> list[int]:
    """Of the first array of a type."""
    found = re.search(r"\w+\[([\d,]*)\]", kind)
    return [int(n) for n in found[1].split(",") if n] if found else []


def num_bytes(kind: str) -> int:
    """Of the arrays of a type in the device's main memory, with the padding of their tiles."""
    total = 0
    for dtype, dims, layout in re.findall(r"(\w+)\[([\d,]*)\](?:\{([^{}]*)\})?", kind):
        if "S(" in layout:  # another memory: on the chip, or the host's
            continue
        shape = [int(n) for n in dims.split(",") if n]
        order, _, tiles = layout.partition(":")
        tile = re.match(r"T\(([\d,]+)\)", tiles)
        if tile and shape:
            sizes = [int(n) for n in tile[1].split(",")]
            for axis, size in zip([int(n) for n in order.split(",")], reversed(sizes), strict=False):
                shape[axis] = -(-shape[axis] // size) * size
        total += math.prod(shape) * SIZES.get(dtype, 4)
    return total
