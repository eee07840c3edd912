"""A check that tfds and the packages that it needs are installed, without importing them."""

import importlib.util

from cxgrad_jax.errors import UserError

# For each name that pip installs, the name that Python imports. tfds needs the last two for ArrayRecord files.
_NEEDED = {
    "tensorflow-datasets": "tensorflow_datasets",
    "array_record": "array_record",
    "importlib_resources": "importlib_resources",
}


def require_tfds() -> None:
    """Raises UserError with the pip command unless tfds and what it needs are installed."""
    missing = [pip for pip, module in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}: run `pip install {' '.join(missing)}`")
