"""A learner as programs in one file, which run without the code of its model.

    cxgrad_jax.export("learner.programs", learner, params, sampler.batch(range(4)), optax.adam(1e-3))
    exported = cxgrad_jax.load_exported("learner.programs")
    adapted = exported.adapt(exported.params, support_images, support_labels)

The file is safetensors. It holds the arrays of the meta-parameters and of the optimiser, and each program as the bytes
that ``jax.export`` makes. Every program is there twice: in the form that is fast on a CPU, and in the form that is fast
on accelerators.
"""

import functools
import json
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from cxgrad_jax import platforms, runtime
from cxgrad_jax.arguments import as_path, check_learner, check_optimiser
from cxgrad_jax.batching import mean_loss
from cxgrad_jax.episodes import Episode, as_batch
from cxgrad_jax.errors import UserError
from cxgrad_jax.fitting import TrainState, updated
from cxgrad_jax.learners import MetaLearner, merge, with_running_averages
from cxgrad_jax.learners._cavia import Context
from cxgrad_jax.learners._meta_learner import Adapted
from cxgrad_jax.learners._metric import Described, Support
from cxgrad_jax.saving import arrays_of, params_sha256, read_arrays, write_arrays

FORMAT = "1"  # of the header; a change that older files cannot follow raises it

# For each form: the platform that the program is traced for, and the platforms that it is lowered for. The form of
# accelerators is lowered for a CPU, too, so that a process without an accelerator can compare its numbers.
FORMS = {"cpu": ("cpu", ("cpu",)), "accelerator": ("tpu", ("cpu", "cuda", "tpu"))}


class ExportedLearner(NamedTuple):
    """The programs of a learner, as a file keeps them.

    Each takes arrays of the shapes and dtypes that it was exported with, and no others.

    A program can be called inside ``jax.jit``. It can neither be differentiated nor vectorised.

    Attributes:
      params: the meta-parameters.
      state: ``TrainState(params, opt_state, iteration)`` at iteration 0, from which ``train_step`` starts; or None.
      adapt: ``(params, support_images, support_labels) -> adapted`` of one episode.
      predict: ``(params, adapted, query_images) -> logits [N, way]`` of one episode.
      loss_and_gradients: ``(params, episodes) -> ((loss, metrics), gradients)`` of the mean loss over a task axis.
      train_step: ``(state, episodes) -> (state, metrics)``, one outer iteration; or None.
    """

    params: Any
    state: TrainState | None
    adapt: Callable[..., Any]
    predict: Callable[..., jax.Array]
    loss_and_gradients: Callable[..., Any]
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]] | None


def export(
    path: str | os.PathLike[str],
    learner: MetaLearner,
    params: Any,
    episodes: Episode,
    optimiser: optax.GradientTransformation | None = None,
) -> None:
    """Writes a learner's functions as programs for CPU, CUDA and TPU into one file, whole or not at all.

    Such a file can be read for six months: a version of JAX runs programs that versions up to six months older or up to
    three weeks newer exported. A program that is read back gives the numbers of the learner itself up to rounding: 1e-5
    of the largest value for logits, 1e-4 for gradients.

    Args:
      path: the file.
      learner: any learner, also one of the caller's own.
      params: its meta-parameters.
      episodes: a batch ``[tasks, ...]``, such as ``sampler.batch(range(4))``. It gives the shapes and dtypes; its
        values do not matter.
      optimiser: an Optax transformation for ``train_step``. Without it the file has no ``train_step``.

    Raises:
      UserError: ``path``, ``learner`` or ``optimiser`` has the wrong type; ``flatbuffers`` is not installed; ``params``
        or ``episodes`` do not fit the learner; the file cannot hold what ``adapt`` returns or the optimiser's state; or
        the file cannot be written.
    """
    path = as_path("path", path)
    check_learner(learner)
    if optimiser is not None:
        check_optimiser(optimiser)
    _jax_export()  # refuses before the work
    episodes = as_batch(episodes)
    params, one = jax.tree.map(jnp.asarray, params), jax.tree.map(lambda x: x[0], episodes)
    arrays: dict[str, Any] = {f"params/{name}": leaf for name, leaf in arrays_of(params).items()}
    adapted = jax.eval_shape(learner.adapt, params, *one[:2])
    programs: dict[str, tuple[Callable[..., Any], Any]] = {
        "adapt": (learner.adapt, (params, *one[:2])),
        "predict": (learner.predict, (params, adapted, one.query_images)),
        "loss_and_gradients": (jax.value_and_grad(mean_loss(learner), has_aux=True), (params, episodes)),
    }
    if optimiser:
        state = TrainState(params, with_running_averages(optimiser).init(params), jnp.zeros((), jnp.int32))
        arrays |= {f"state/{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(state[1:]))}
        programs["train_step"] = (_train_step(learner, optimiser), (state, episodes))
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in arrays.items()} | _serialised(programs)
    header = {
        "export": FORMAT, "learner": json.dumps(learner.spec), "jax": jax.__version__, "sha256": params_sha256(arrays)
    }  # fmt: skip
    write_arrays(path, arrays, header)


def _serialised(programs: Mapping[str, tuple[Callable[..., Any], Any]]) -> dict[str, np.ndarray]:
    """The functions at the shapes of their arguments, in each form, as bytes: ``{"FORM/NAME": uint8 [bytes]}``."""
    serialise, arrays = _jax_export().export, {}
    for name, (function, arguments) in programs.items():
        shapes = jax.eval_shape(lambda *x: x, *arguments)
        for form, (traced_as, lowered_for) in FORMS.items():
            program = serialise(_traced_for(traced_as, function), platforms=lowered_for)(*shapes)
            try:
                arrays[f"{form}/{name}"] = np.frombuffer(program.serialize(), np.uint8)
            except ValueError as error:  # a type of the caller's own
                raise UserError(
                    f"{name} has a type that jax.export cannot write ({str(error).splitlines()[0]}); "
                    "jax.export.register_namedtuple_serialization makes it known"
                ) from None
    return arrays


def load_exported(path: str | os.PathLike[str]) -> ExportedLearner:
    """Reads what ``export`` wrote, in the form of this process's platform. Nothing that the file names is imported.

    Args:
      path: the file.

    Raises:
      UserError: ``flatbuffers`` is not installed, ``path`` is not a path, there is no such file, ``export`` did not
        write it, it is damaged, or this version of JAX no longer reads it. A program raises it for other shapes or
        dtypes.
    """
    return _load(path, "cpu" if platforms.current_platform() == "cpu" else "accelerator")


def _load(path: str | os.PathLike[str], form: str) -> ExportedLearner:
    path, deserialise = as_path("path", path), _jax_export().deserialize
    header, arrays = read_arrays(path, "cx.export", "export", FORMAT)
    if params_sha256(arrays) != header["sha256"]:
        raise UserError(f"{path} is damaged (its arrays are not those that were saved); get it again")
    programs = {}
    for name in ("adapt", "predict", "loss_and_gradients", "train_step"):
        if (content := arrays.get(f"{form}/{name}")) is not None:
            try:
                programs[name] = deserialise(bytearray(content.tobytes()))
            except Exception as error:  # jax and flatbuffers raise many kinds
                raise UserError(
                    f"{path} was exported with jax {header.get('jax')} and cannot be read with {jax.__version__} "
                    f"({str(error).splitlines()[0][:120]}); export it again with a version less than six months older"
                ) from None
    flat = {name.removeprefix("params/"): array for name, array in arrays.items() if name.startswith("params/")}
    params = jax.tree.map(jnp.asarray, merge(flat))
    state = None
    if "train_step" in programs:
        others = [jnp.asarray(arrays[name]) for name in sorted(arrays) if name.startswith("state/")]
        structure = programs["train_step"].in_tree.children()[0].children()[0]  # of ((state, episodes), {}): the state
        state = jax.tree.unflatten(structure, [*jax.tree.leaves(params), *others])
    functions = {name: _checked(name, program) for name, program in programs.items()}
    return ExportedLearner(params, state, **{"train_step": None, **functions})


def _train_step(learner: MetaLearner, optimiser: optax.GradientTransformation) -> Callable[..., Any]:
    """Makes one outer iteration, the same as that of ``fitting.train_program`` on one device."""
    gradient, optimiser = jax.value_and_grad(mean_loss(learner), has_aux=True), with_running_averages(optimiser)

    def step(state, episodes):
        (loss, metrics), gradients = gradient(state.params, episodes, state.iteration)
        return updated(optimiser, state, loss, metrics, gradients)

    return step


def _traced_for(platform: str, function: Callable[..., Any]) -> Any:
    def traced(*arguments):
        with platforms.traced_for(platform):
            return function(*arguments)

    return jax.jit(traced)


def _checked(name: str, program: Any) -> Callable[..., Any]:
    """Compiles the program, and refuses in one line arguments that it was not made for."""
    compiled = jax.jit(program.call, compiler_options=runtime.compiler_options(1))
    expected = {
        place: f"{x.dtype}{list(x.shape)}"
        for place, x in _by_place(jax.tree.unflatten(program.in_tree, program.in_avals)[0]).items()
    }

    def call(*arguments):
        leaves = _by_place(arguments)
        given = {place: _shape(leaf) for place, leaf in leaves.items()}
        given = {f"[{i}]": f"a {type(x).__name__}" for i, x in enumerate(arguments)} | given
        for place in [*expected, *leaves]:
            if expected.get(place) != given.get(place):
                raise UserError(
                    f"argument {place} of {name} is {given.get(place, 'missing')}; it was exported for "
                    f"{expected.get(place, 'none')}"
                )
        # The same arrays in containers of another kind, such as a FrozenDict, are as good.
        arguments, _ = jax.tree.unflatten(program.in_tree, [leaves[place] for place in expected])
        if any(isinstance(leaf, Tracer) for leaf in leaves.values()):
            return program.call(*arguments)  # inside the caller's jit, which has compiler options of its own
        return compiled(*arguments)

    return call


def _by_place(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _shape(leaf: Any) -> str:
    """The dtype and shape that JAX gives to a value, or the type of a value that it does not take."""
    try:
        abstract = jax.eval_shape(lambda x: x, leaf)
    except TypeError:
        return f"a {type(leaf).__name__}"
    return f"{abstract.dtype}{list(abstract.shape)}"


@functools.cache
def _jax_export() -> Any:
    """``jax.export``, which knows the types of episodes, of what learners return, and of Optax's states."""
    if find_spec("flatbuffers") is None:
        raise UserError("an export needs flatbuffers: pip install 'cxgrad_jax[export]'")
    from jax import export  # not an attribute of jax until it is imported

    ours = {f"cxgrad_jax.{kind.__name__}": kind for kind in (Episode, TrainState, Adapted, Context, Described, Support)}
    states = {
        f"optax.{name}": kind
        for name, kind in vars(optax).items()
        if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
    }
    for name, kind in (ours | states).items():
        try:
            export.register_namedtuple_serialization(kind, serialized_name=name)
        except ValueError:  # the caller has made it known before, or Optax has two names for it
            continue
    return export
