#!/usr/bin/env bash
# The versions that images are built with: pins.sh cpu|gpu.
set -euo pipefail
# vLLM for GPUs wants a tvm-ffi of its own, and CUDA's torch the triton that it was made with.
[ "$1" = cpu ] && others='^#' || others='^(#|apache-tvm-ffi|triton)'
grep -vE "$others" "$(dirname "$0")/cpu/requirements.txt"
