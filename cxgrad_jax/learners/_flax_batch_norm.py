"""flax's BatchNorm in a learner: it takes and returns statistics as this package's ``Norm`` does."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cxgrad_jax.models._dtypes import widen


def flax_batch_norm(call, arguments, keywords, context):
    """For ``nn.intercept_methods``: lets flax's BatchNorm take and return statistics as this package's ``Norm`` does.

    The learner decides whether it normalises by the batch, and not ``use_running_average``.
    """
    module = context.module
    if not (isinstance(module, nn.BatchNorm) and context.method_name == "__call__") or module.is_initializing():
        return call(*arguments, **keywords)
    x = arguments[0] if arguments else keywords["x"]
    features = {axis % x.ndim for axis in (module.axis if isinstance(module.axis, Sequence) else (module.axis,))}
    others = tuple(axis for axis in range(x.ndim) if axis not in features)
    used = given = [module.get_variable("batch_stats", name) for name in ("mean", "var")]
    if module.is_mutable_collection("batch_stats"):
        flag = arguments[1] if len(arguments) > 1 else keywords.get("use_running_average")
        by_batch = not (module.use_running_average if flag is None else flag)
        output = call(*arguments, **keywords) if by_batch else None
        wide, where = widen(x), keywords.get("mask")
        used = jnp.mean(wide, axis=others, where=where), jnp.var(wide, axis=others, where=where)
        for name, old, new in zip(("mean", "var"), given, used, strict=True):
            moved = new if old is None else module.momentum * old + (1 - module.momentum) * new
            module.put_variable("batch_stats", name, moved)
        if by_batch:
            return output

    def broadcast(values):
        return jnp.expand_dims(values, others)

    y = (x - broadcast(used[0])) * jax.lax.rsqrt(broadcast(used[1]) + module.epsilon)
    y = y * broadcast(module.get_variable("params", "scale")) if module.use_scale else y
    y = y + broadcast(module.get_variable("params", "bias")) if module.use_bias else y
    return y if module.dtype is None else y.astype(module.dtype)
