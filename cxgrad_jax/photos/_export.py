"""Classifiers for other programs: StableHLO for any backbone, ONNX for EfficientNet-Lite.

Both take pixels after the preprocessing of ``cx.photos``, uint8 ``[N, size, size, C]``, with one input for each view.
They give the probabilities ``[N, classes]`` and the familiarity ``[N]``. Everything else is inside. ``description``
goes with the file, and says how to prepare the pixels and what the classes are called.

ONNX is written with ``onnx.helper`` node by node. The converter of JAX programs, jax2onnx, cannot be installed beside
this package: it needs orbax-checkpoint < 0.11.37, and training needs 0.12.4.
"""

import json
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import write_json, write_whole
from cxgrad_jax.models import EfficientNetLite
from cxgrad_jax.models._efficientnet_lite import blocks_of
from cxgrad_jax.photos._backbones import embedding
from cxgrad_jax.photos._classifier import NONE, Classifier
from cxgrad_jax.photos._folders import PathLike
from cxgrad_jax.photos._preprocessing import VIEWS

OUTPUTS = ("probabilities", "familiarity")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
OPSET, IR_VERSION = 17, 8  # onnxruntime reads these from 1.13 on
TOLERANCE = 1e-3  # the largest difference of probabilities between onnxruntime and the classifier


def description(classifier: Classifier) -> dict[str, Any]:
    """The description that a program needs to use an exported classifier."""
    preprocessing = classifier.backbone.preprocessing
    return {
        "class_names": list(classifier.class_names),
        "inputs": {view: VIEWS[view] for view in preprocessing.views},
        "pixels": f"uint8 [N, {preprocessing.size}, {preprocessing.size}, {preprocessing.channels}], "
        "upright, transparent parts on white, RGB, cropped as the input says, resized by antialiased bicubic filter",
        "size": preprocessing.size,
        "outputs": {"probabilities": "[N, classes]", "familiarity": "[N]"},
        "threshold": classifier.threshold,
        "below_threshold": NONE,
    }


def export_stablehlo(classifier: Classifier, path: PathLike) -> str:
    """Writes the classifier as StableHLO for every platform, and ``description`` beside it as JSON.

        exported = jax.export.deserialize(open(path, "rb").read())
        probabilities, familiarity = exported.call(pixels)

    Args:
      classifier: the classifier.
      path: the file. The description goes to ``path`` followed by ``.json``.

    Returns:
      A line that says what was written.

    Raises:
      UserError: flatbuffers is missing, or a file cannot be written.
    """
    from jax import export  # not an attribute of jax until it is imported

    path = as_path("path", path)
    if find_spec("flatbuffers") is None:
        raise UserError("StableHLO needs flatbuffers: pip install 'cxgrad_jax[export]'")
    number = export.symbolic_shape("n")[0]
    arguments = [jax.ShapeDtypeStruct((number, *shape), jnp.uint8) for shape in _shapes(classifier).values()]
    exported = export.export(_program(classifier), platforms=PLATFORMS)(*arguments)
    content = bytes(exported.serialize())
    write_whole(path, content)
    write_json(path.with_name(f"{path.name}.json"), description(classifier))
    ours = _program(classifier)(*_examples(classifier))
    theirs = export.deserialize(bytearray(content)).call(*_examples(classifier))
    return f"{path}: StableHLO, differs by at most {_difference(ours, theirs):.1g} from our own answers"


def export_onnx(classifier: Classifier, path: PathLike) -> str:
    """Writes the classifier as ONNX, with ``description`` in its metadata, and checks it in onnxruntime.

    Args:
      classifier: a classifier whose backbone is EfficientNet-Lite.
      path: the file.

    Returns:
      A line that says what was written.

    Raises:
      UserError: the backbone is not EfficientNet-Lite, onnx or onnxruntime is missing, or the file cannot be written.
    """
    path = as_path("path", path)
    if not isinstance(classifier.backbone.model, EfficientNetLite):
        name = type(classifier.backbone.model).__name__
        raise UserError(f"ONNX is written for EfficientNetLite alone, not {name}; --format=stablehlo takes every model")
    try:
        import onnx  # pyright: ignore[reportMissingImports]  (an extra)
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(f"ONNX needs {error.name}: pip install 'cxgrad_jax[export]'") from None
    model = _onnx_model(classifier, onnx)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    examples = _examples(classifier)
    theirs = session.run(list(OUTPUTS), dict(zip(_shapes(classifier), examples, strict=True)))
    difference = _difference(_program(classifier)(*examples), theirs)
    if not difference < TOLERANCE:
        raise RuntimeError(f"onnxruntime differs by {difference} from our own answers")
    write_whole(path, content)
    return f"{path}: ONNX, differs in onnxruntime by at most {difference:.1g} from our own answers"


def _program(classifier: Classifier) -> Any:
    """Makes the compiled function from views, each uint8 ``[N, size, size, C]``, to the two ``OUTPUTS``."""
    network, head = classifier.backbone, classifier.head
    embed = embedding(network.model, network.preprocessing)

    @jax.jit
    def predict(*views):
        features = embed(network.variables, views)
        logits = (features @ head.weights + head.bias) / head.temperature
        return jax.nn.softmax(logits), (features @ classifier.prototypes).max(axis=-1)

    return predict


def _shapes(classifier: Classifier) -> dict[str, tuple[int, int, int]]:
    """The shape of one photo in each input."""
    size, channels = classifier.backbone.preprocessing.size, classifier.backbone.preprocessing.channels
    return dict.fromkeys(classifier.backbone.preprocessing.views, (size, size, channels))


def _examples(classifier: Classifier) -> list[np.ndarray]:
    """The views of two random photos."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (2, *shape), dtype=np.uint8) for shape in _shapes(classifier).values()]


def _difference(ours: Any, theirs: Any) -> float:
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(ours, theirs, strict=True))


def _onnx_model(classifier: Classifier, onnx: Any) -> Any:
    network, head = classifier.backbone, classifier.head
    graph, shapes = _Graph(onnx.helper, onnx.numpy_helper), _shapes(classifier)
    views = [_onnx_features(graph, network, view) for view in shapes]
    total = views[0]
    for view in views[1:]:
        total = graph.node("Add", total, view)
    features = graph.node("LpNormalization", total, axis=1, p=2)
    logits = graph.node("MatMul", features, graph.constant(head.weights / head.temperature))
    logits = graph.node("Add", logits, graph.constant(head.bias / head.temperature))
    graph.node("Softmax", logits, axis=1, output="probabilities")
    alike = graph.node("MatMul", features, graph.constant(classifier.prototypes))
    graph.node("ReduceMax", alike, axes=[1], keepdims=0, output="familiarity")

    helper, kinds = onnx.helper, onnx.TensorProto
    inputs = [helper.make_tensor_value_info(name, kinds.UINT8, ["n", *shape]) for name, shape in shapes.items()]
    sizes = (["n", len(classifier.class_names)], ["n"])
    outputs = [helper.make_tensor_value_info(*each) for each in zip(OUTPUTS, [kinds.FLOAT] * 2, sizes, strict=True)]
    made = helper.make_graph(graph.nodes, "photos", inputs, outputs, graph.constants)
    model = helper.make_model(
        made, producer_name="cxgrad_jax", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    helper.set_model_props(model, {"cxgrad_photos": json.dumps(description(classifier))})
    return model


def _onnx_features(graph: "_Graph", network: Any, pixels: str) -> str:
    """Adds the nodes of one view; returns the name of its features of length 1."""
    model, variables, preprocessing = network.model, network.variables, network.preprocessing
    channelwise = (np.reshape(each, (1, -1, 1, 1)) for each in (preprocessing.mean, preprocessing.deviation))
    mean, deviation = channelwise
    x = graph.node("Transpose", graph.node("Cast", pixels, to=1), perm=[0, 3, 1, 2])
    x = graph.node("Mul", x, graph.constant(1 / (255 * deviation)))
    x, side = graph.node("Sub", x, graph.constant(mean / deviation)), preprocessing.size

    def unit(x, side, *path, stride=1, active=True, depthwise=False):
        params, statistics = variables["params"], variables["batch_stats"]
        for name in path:
            params, statistics = params[name], statistics[name]
        kernel, norm, found = np.asarray(params["conv"]["kernel"]), params["norm"], statistics["norm"]
        factor = np.asarray(norm["scale"]) / np.sqrt(np.asarray(found["var"]) + model.norm_epsilon)
        weights = graph.constant((kernel * factor).transpose(3, 2, 0, 1))
        bias = graph.constant(np.asarray(norm["bias"]) - np.asarray(found["mean"]) * factor)
        size, steps = kernel.shape[0], -(-side // stride)
        missing = max((steps - 1) * stride + size - side, 0)
        low, high = missing // 2, missing - missing // 2
        groups = kernel.shape[3] if depthwise else 1
        x = graph.node(
            "Conv", x, weights, bias, group=groups, strides=[stride] * 2, pads=[low, low, high, high],
            kernel_shape=[size] * 2,
        )  # fmt: skip
        return (graph.node("Clip", x, graph.constant(0), graph.constant(6)) if active else x), steps

    x, side = unit(x, side, "stem", stride=2)
    for number, (_, stride, expansion, features) in enumerate(blocks_of(model.variant)):
        block, y, before = f"block_{number}", x, side
        if expansion > 1:
            y, side = unit(y, side, block, "expand")
        y, side = unit(y, side, block, "depthwise", stride=stride, depthwise=True)
        y, side = unit(y, side, block, "project", active=False)
        last = variables["params"][f"block_{number - 1}"]["project"] if number else None
        same = last is not None and last["norm"]["scale"].shape[0] == features and side == before
        x = graph.node("Add", x, y) if same else y
    x, side = unit(x, side, "top")
    pooled = [graph.node("Flatten", graph.node(f"Global{kind}Pool", x)) for kind in ("Average", "Max")]
    halves = [graph.node("LpNormalization", half, axis=1, p=2) for half in pooled]
    return graph.node("LpNormalization", graph.node("Concat", *halves, axis=1), axis=1, p=2)


class _Graph:
    """The nodes and constants of an ONNX graph. Every value has a name."""

    def __init__(self, helper: Any, numpy_helper: Any):
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = output or f"value_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Adds a constant in float32; returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name
