"""``python -m cxgrad_jax WORD [FLAG ...]``: the same as ``cxgrad``."""

import sys

from cxgrad_jax.cli import main

sys.exit(main())
