"""Files of weights: how ``cx.load(NAME)`` finds one.

A file of the user's comes first. Otherwise NAME is a file in this project's ``weights/``, which an installed package
contains. Only a name that begins with ``hf://`` is looked up on the Hugging Face Hub.
"""

import difflib
import os
from pathlib import Path

from cxgrad_jax.arguments import as_path
from cxgrad_jax.errors import UserError
from cxgrad_jax.files import refuse_forbidden

PACKAGE = Path(__file__).parent
HUB = "hf://"
HUB_FILE = "model.safetensors"  # the file of a repository, if the name gives none


def bundled() -> dict[str, Path]:
    """The files of this project's ``weights/`` by name, such as ``"classifier_baseline_cifar_fs"``.

    They are inside an installed package, and beside the package in a checkout.
    """
    folder = next((folder for folder in (PACKAGE / "weights", PACKAGE.parent / "weights") if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))} if folder else {}


def find(name: str | os.PathLike[str]) -> Path:
    """The file that ``name`` names.

    Args:
      name: a file, one of the names of ``bundled``, or a name on the Hugging Face Hub. There ``hf://OWNER/NAME`` is the
        file ``model.safetensors`` of a repository, and ``hf://OWNER/NAME/FILE.safetensors`` is another file of it.

    Raises:
      UserError: there is no such file, or it cannot be fetched from the Hub. If the name is not on the Hub, the line
        has the names of ``bundled``.
    """
    if str(name).startswith(HUB):
        return _fetched(str(name))
    path = as_path("name_or_path", name)
    if os.path.isfile(path):  # unlike Path.is_file, it raises nothing if a folder may not be read
        return path
    known = bundled()
    if str(name) in known:
        return known[str(name)]
    refuse_forbidden(path)
    stem = path.name.removesuffix(".safetensors")
    close = difflib.get_close_matches(stem, known, n=1)
    hint = f"did you mean {close[0]}? The names are" if close else "expected a file that cx.save wrote, or one of"
    raise UserError(f"{name} is neither a file nor the name of bundled weights; {hint} {', '.join(known)}")


def _fetched(name: str) -> Path:
    """The file on the Hub that ``hf://OWNER/NAME[/FILE.safetensors]`` names, in the cache of ``huggingface_hub``."""
    owner, _, rest = name.removeprefix(HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository or (file and not file.endswith(".safetensors")):
        raise UserError(
            f"{name} is not a name on the Hub; expected {HUB}OWNER/NAME or {HUB}OWNER/NAME/FILE.safetensors"
        )
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError:
        raise UserError(f"{name} needs huggingface_hub: pip install 'cxgrad_jax[hub]'") from None
    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{repository}", file or HUB_FILE))
    except Exception as error:  # the Hub, the network, the cache and the name raise many kinds
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"{name} cannot be fetched ({type(error).__name__}: {lines[0]})") from None
