#!/usr/bin/env bash
# The versions that images are built with: pins.sh cpu|gpu.
set -euo pipefail
# A torch with CUDA wants the triton that it was made with, and vLLM for GPUs a tvm-ffi of its own.
[ "$1" = cpu ] && others='^(#|triton)' || others='^(#|apache-tvm-ffi|triton)'
grep -vE "$others" "$(dirname "$0")/cpu/requirements.txt"
