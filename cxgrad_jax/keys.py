"""Random keys by purpose: two uses of one seed never share a key, and a seed always draws the same."""

import zlib
from contextlib import AbstractContextManager

import jax


def purpose_key(seed: int | jax.Array, purpose: str) -> jax.Array:
    """The key of ``seed`` for one purpose, such as ``"init"`` or ``"episodes/train"``.

    It is the seed's Threefry key folded with the CRC-32 of the purpose. If it were folded with a small number,
    ``jax.random.split`` of the seed's key would give the same keys.

    Args:
      seed: 0 to 4294967295.
      purpose: a name.
    """
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), zlib.crc32(purpose.encode()))


def fixed_draws() -> AbstractContextManager[None]:
    """A context in which a key draws what it draws by default, even if ``jax_threefry_partitionable`` is off."""
    return jax.threefry_partitionable(True)
