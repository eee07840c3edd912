"""``python -m cxgrad_jax.compare``: several learners under one protocol, in one table."""

import signal
import sys

from cxgrad_jax import runtime
from cxgrad_jax.report.comparison import run

if __name__ == "__main__":
    runtime.restart_with_allocator()
    runtime.keep_compiled_programs()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
