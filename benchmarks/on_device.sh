#!/usr/bin/env bash
# Everything that a machine with a GPU or TPU is to tell, in at most ten minutes: benchmarks/on_device.sh [--small] ...
# It needs jax, flax, optax, chex and numpy; PyTorch is compared where it is. PYTHON names the interpreter.
cd "$(dirname "$0")/.."
export TF_CPP_MIN_LOG_LEVEL=2 PYTHONPATH=$PWD:${PYTHONPATH:-}
exec "${PYTHON:-python3}" -m benchmarks.on_device "$@"
