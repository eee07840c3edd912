"""What tfds needs around it, told without importing it."""

import importlib.util

from cxgrad_jax.errors import UserError

# From what pip installs to what Python imports. tfds reads and writes ArrayRecord files with the last two.
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
