"""``python -m cxgrad_jax.tables NUMBER``: a table of the CxGrad paper."""

import signal
import sys

from cxgrad_jax import runtime
from cxgrad_jax.report.paper_tables import run

if __name__ == "__main__":
    runtime.restart_with_allocator()
    runtime.keep_compiled_programs()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
