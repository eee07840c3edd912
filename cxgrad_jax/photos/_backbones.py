"""The network that turns photos into features, and where its weights come from."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cxgrad_jax import runtime
from cxgrad_jax.arguments import check_kind, check_learner, check_params, check_whole
from cxgrad_jax.errors import UserError, reason
from cxgrad_jax.learners import MetaLearner
from cxgrad_jax.learners._checked import model_and_labels
from cxgrad_jax.learners._checks import fitting
from cxgrad_jax.learners._flax_batch_norm import flax_batch_norm
from cxgrad_jax.learners._model import apply_model
from cxgrad_jax.models import Conv4, EfficientNetLite
from cxgrad_jax.models._layers import IMAGE_STATISTICS
from cxgrad_jax.photos._preprocessing import Preprocessing, plain
from cxgrad_jax.photos._pretrained import pretrained
from cxgrad_jax.saving import image_size_of
from cxgrad_jax.saving import load as load_learner
from cxgrad_jax.weight_files import bundled

NAMES = {f"efficientnet_lite{variant}": variant for variant in (0, 1, 2)}
WIDER_VIEWS = {"efficientnet_lite2": ("middle", "whole")}  # more views brought Lite0 nothing: benchmarks/photos.py
SUFFIX = ".safetensors"
EXPECTED_MODEL = "a flax.linen module with a method embed from images [N, H, W, C] to features [N, D]"
USUAL_SIZES = (84, 32, 28, 64, 224)  # of images, to be tried where only a head tells the size


class Backbone(NamedTuple):
    """A network with weights, and the preprocessing of its photos.

    Attributes:
      name: the name in messages and summaries.
      model: a ``flax.linen`` module with a method ``embed`` from images ``[N, H, W, C]`` to features ``[N, D]``.
      variables: flax's collections ``"params"`` and, for batch normalisations, ``"batch_stats"``.
      preprocessing: the preprocessing of the photos.
    """

    name: str
    model: nn.Module
    variables: dict[str, Any]
    preprocessing: Preprocessing


def find_backbone(backbone: "str | Path | Backbone") -> Backbone:
    """Finds a backbone: ``"efficientnet_lite0"``, 1 or 2, bundled weights by name, or a file that ``cx.save`` wrote.

    Raises:
      UserError: there is none, its weights are not installed, the file cannot be read, or a ``Backbone`` has a
        preprocessing that cannot be used, or a model that makes no features.
    """
    if isinstance(backbone, Backbone):
        return _checked(backbone)
    if str(backbone) in NAMES:
        model, variables = pretrained(NAMES[str(backbone)])
        variables["params"].pop("head")  # the head of ImageNet's classes
        mean, deviation = IMAGE_STATISTICS[model.image_statistics]
        views = WIDER_VIEWS.get(str(backbone), ("middle",))
        preprocessing = Preprocessing(model.image_size, views, mean=mean, deviation=deviation)
        return Backbone(str(backbone), model.clone(image_statistics="none"), variables, preprocessing)
    if str(backbone).endswith(SUFFIX) or str(backbone) in bundled():
        learner, params = load_learner(backbone)
        return backbone_of_learner(learner, params, image_size_of(backbone), name=Path(backbone).name)
    known = ", ".join((*NAMES, *bundled()))
    raise UserError(
        f"backbone is {str(backbone)!r}; expected one of {known}, a file that cx.save wrote, or a run's folder (on the "
        "command line; in Python cx.photos.backbone_of_learner)"
    )


def backbone_of_learner(
    learner: MetaLearner, params: Any, size: int | None = None, name: str = "meta-trained"
) -> Backbone:
    """Makes a backbone from the network of a learner and its meta-parameters.

    Its batch normalisations have the running averages of the meta-parameters. If there are none, they take the
    statistics of the batch until ``with_statistics`` gives them some.

    Args:
      learner: a learner of this package, such as ``cx.load`` returns.
      params: its meta-parameters.
      size: the height and width of the images that it was trained on. If None, it is the size of EfficientNet-Lite, or
        the one that fits the head of a Conv-4.
      name: the name of the backbone.

    Raises:
      UserError: the learner does not know its model, the model has no features or none without the learner (CAVIA,
        MAML++), or the size is not known.
    """
    check_learner(learner)
    check_params(params)
    if size is not None:
        check_whole("size", size)
    model, _ = model_and_labels(learner)
    if model is None or not hasattr(model, "embed") or "model" not in params:
        raise UserError(f"{name} is not a backbone; expected a learner whose model has a method embed, such as Conv4")
    if "film" in params:
        raise UserError(f"{name} is not a backbone: its network needs CAVIA's learned FiLM layer")
    channels = _first_kernel(params["model"]).shape[2]
    size = size or _image_size(model, params["model"], channels)
    if not size:
        raise UserError(
            f"{name} does not say the size of the images that it was trained on; save it with "
            "cx.save(path, learner, params, image_size=...), or give the backbone as "
            "cx.photos.backbone_of_learner(learner, params, size)"
        )
    preprocessing = plain(Preprocessing(size, channels=channels))
    images = _images(preprocessing)
    with fitting(params, images):  # the parameters of MAML++ have a row for each inner step
        features = jax.eval_shape(functools.partial(apply_model, model, params["model"], method="embed"), images)
    _check_features(name, features)
    averages = {"batch_stats": params["statistics"]["model"]} if "statistics" in params else {}
    return Backbone(name, model, {"params": params["model"], **averages}, preprocessing)


def _checked(backbone: Backbone) -> Backbone:
    """A user's backbone with a plain preprocessing; refuses one that could not be used or saved."""
    check_kind("model", backbone.model, ("apply", "embed"), EXPECTED_MODEL)
    preprocessing = plain(backbone.preprocessing)
    images = _images(preprocessing)

    def embed(variables, images):
        with nn.intercept_methods(flax_batch_norm):
            return backbone.model.apply(variables, images, method="embed", mutable=["batch_stats"])[0]

    try:
        features = jax.eval_shape(embed, backbone.variables, images)
    except Exception as error:  # a module of the user's raises any exception
        raise UserError(
            f"{backbone.name} is not a backbone: its embed fails on images of shape {list(images.shape)} "
            f"({reason(error)[:200]}); give variables and a size that fit the model"
        ) from error
    _check_features(backbone.name, features)
    return backbone._replace(preprocessing=preprocessing)


def _images(preprocessing: Preprocessing) -> jax.ShapeDtypeStruct:
    size = preprocessing.size
    return jax.ShapeDtypeStruct((1, size, size, preprocessing.channels), np.float32)


def _check_features(name: str, features: Any) -> None:
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1:
        found = "no array" if shape is None else f"shape {list(shape)} for one image"
        raise UserError(f"{name} is not a backbone: its embed gives {found}; expected {EXPECTED_MODEL}")


def with_statistics(backbone: Backbone, images: np.ndarray) -> Backbone:
    """Gives the batch normalisations of a backbone the statistics of ``images``, if they lack any.

    Without statistics the features of a photo would depend on the others in the same call.

    Args:
      backbone: the backbone.
      images: uint8 ``[N, size, size, C]``, one view of each of some photos.
    """
    if "batch_stats" in backbone.variables:
        return backbone

    @jax.jit
    def statistics(variables, images):
        standard = standardised(images, backbone.preprocessing)
        with nn.intercept_methods(flax_batch_norm):
            return backbone.model.apply(variables, standard, method="embed", mutable=["batch_stats"])[1]

    return backbone._replace(variables={**backbone.variables, **statistics(backbone.variables, images)})


def embedding(model: nn.Module, preprocessing: Preprocessing) -> Callable[[Any, Sequence[jax.Array]], jax.Array]:
    """Makes the function ``(variables, views) -> features [N, D]``, where each view is uint8 ``[N, size, size, C]``.

    The features are the mean over the views, scaled to length 1. The function is pure and not compiled.
    """

    def embed(variables: Any, views: Sequence[jax.Array]) -> jax.Array:
        # One view at a time stays in the caches.
        features = [_features(model, variables, standardised(view, preprocessing)) for view in views]
        return unit(jnp.sum(jnp.stack(features), axis=0))

    return embed


def _features(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Features ``[N, D]`` of length 1. EfficientNet-Lite's are means and maxima over positions, side by side."""
    if not isinstance(model, EfficientNetLite):
        with nn.intercept_methods(flax_batch_norm):
            return unit(jnp.asarray(model.apply(variables, images, method="embed")))
    maps = jnp.asarray(model.apply(variables, images, method="feature_maps"))
    return unit(jnp.concatenate([unit(maps.mean(axis=(1, 2))), unit(maps.max(axis=(1, 2)))], axis=-1))


@functools.lru_cache(maxsize=4)
def _compiled(model: nn.Module, preprocessing: Preprocessing) -> Callable[[Any, Sequence[np.ndarray]], jax.Array]:
    embed = embedding(model, preprocessing)
    return jax.jit(embed, compiler_options=runtime.compiler_options(1))


def features_of(backbone: Backbone, views: np.ndarray) -> np.ndarray:
    """Features of one photo, float32 ``[D]`` of length 1, from its views, uint8 ``[views, size, size, C]``.

    Every photo goes through the same compiled program alone, so its features depend on no other photo.

    Raises:
      UserError: the features are not finite.
    """
    lists: dict[str, Any] = {
        name: tuple(value) for name, value in vars(backbone.model).items() if isinstance(value, list)
    }
    model = backbone.model.clone(**lists) if lists else backbone.model  # a list has no hash
    embed = _compiled(model, backbone.preprocessing)
    features = np.asarray(embed(backbone.variables, [view[None] for view in views])[0], np.float32)
    if not np.isfinite(features).all():
        raise UserError(f"the features of {backbone.name} are not finite, so its weights cannot be used")
    return features


def standardised(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Divides uint8 ``[N, H, W, C]`` by 255, subtracts the mean and divides by the deviation, in float32."""
    mean, deviation = (
        jnp.asarray(each, jnp.float32).reshape(1, 1, 1, -1) for each in (preprocessing.mean, preprocessing.deviation)
    )
    return (images.astype(jnp.float32) / 255 - mean) / deviation


def unit(features: jax.Array) -> jax.Array:
    """Scales features ``[..., D]`` to length 1. Zeros stay zeros."""
    return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def _first_kernel(params: Any) -> Any:
    """The convolution kernel with the fewest input channels: that of the first layer."""
    kernels = [leaf for leaf in jax.tree.leaves(params) if getattr(leaf, "ndim", 0) == 4]
    if not kernels:
        raise UserError("the backbone has no convolution, so it is none for photos")
    return min(kernels, key=lambda kernel: kernel.shape[2])


def _image_size(model: nn.Module, params: Any, channels: int) -> int | None:
    """The size of the images that the model or its head tells, or None."""
    if isinstance(model, EfficientNetLite):
        return model.image_size
    if not isinstance(model, Conv4) or "head" not in params:
        return None
    length = params["head"]["kernel"].shape[0]
    for size in USUAL_SIZES:
        shape = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
        embed = functools.partial(model.apply, {"params": params}, method="embed")
        if jax.eval_shape(embed, shape).shape[-1] == length:  # pyright: ignore[reportAttributeAccessIssue]
            return size
    return None
