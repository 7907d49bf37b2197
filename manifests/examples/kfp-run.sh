#!/usr/bin/env bash
# Run alignment.yaml from CI, and fail where the run fails: the kfp command itself ends well even then.
#   KFP_ENDPOINT=... KFP_NAMESPACE=... EXPERIMENT=... RUN_NAME=... kfp-run.sh key=value ...
# Values are read as JSON: text that looks like a number wants quotes of its own, 'sampler_gpus="0"'.
# TIMEOUT and POLL, in seconds, bound the wait.
# Exit codes: 0 the run succeeded; 1 it did not, or not within TIMEOUT; 2 no run was started, and the last line says why.
set -euo pipefail
timeout=${TIMEOUT:-86400} poll=${POLL:-30}
read_state='import json, sys; print(json.load(sys.stdin)["state"] or sys.exit("the answer names no state"))'
log=$(mktemp) && trap 'rm -f "$log"' EXIT

die() { echo "kfp-run.sh: $2" >&2 && exit "$1"; }
kfp() { command kfp --endpoint "$KFP_ENDPOINT" --namespace "$KFP_NAMESPACE" --output json "$@" 2>"$log"; }

# What kfp complained of: the sentence of KFP, where it answered, or else the last line of kfp.
complaint() {
  python3 - "$log" <<'PYTHON'
import json, re, sys

lines = [line.strip() for line in open(sys.argv[1], encoding="utf-8") if line.strip()]
body = next((line for line in reversed(lines) if line.startswith("HTTP response body: ")), "")
status = next((line for line in reversed(lines) if re.fullmatch(r"\(\d+\)", line)), "")
try:
    answer = json.loads(body.removeprefix("HTTP response body: "))
    print(status, " ".join((answer.get("message") or answer["error"]).split()))
except (ValueError, KeyError, AttributeError):
    if status:
        print(status, body.removeprefix("HTTP response body: ")[:300] or "without a word")
    else:
        print(lines[-1] if lines else "kfp said nothing; is the address that of the API of Kubeflow Pipelines?")
PYTHON
}

for name in KFP_ENDPOINT KFP_NAMESPACE EXPERIMENT RUN_NAME; do
  [ -n "${!name:-}" ] || die 2 "$name is not set; give it in the environment"
done
[ -f alignment.yaml ] || die 2 "there is no alignment.yaml here; oatflow compile writes it"
type -P kfp >/dev/null || die 2 "there is no kfp command; install the Python package kfp"

# kfp looks at the run that it has started, and ends badly where that look fails: the link above names the run even then.
created=$(kfp run create --experiment-name "$EXPERIMENT" --run-name "$RUN_NAME" --package-file alignment.yaml "$@") || true
run=$(sed -n 's|^Run details: .*/runs/details/\([0-9a-f-]*\).*|\1|p' <<<"$created")
[ -n "$run" ] || die 2 "$KFP_ENDPOINT started no run: $(complaint)"
echo "see $KFP_ENDPOINT/#/runs/details/$run"
for ((waited = 0; waited <= timeout; waited += poll)); do
  # What is no JSON, such as the page of a proxy on the way, names no state.
  if found=$(kfp run get "$run") && state=$(python3 -c "$read_state" <<<"$found" 2>"$log"); then
    echo "run $run: $state"
  else
    state='' why=$(complaint)
    # The API may be away for a while, and the run goes on. What it refuses now it will refuse again.
    case $why in
      '(4'*) [[ $why == "(408)"* || $why == "(429)"* ]] || die 1 "run $run cannot be looked at any more: $why" ;;
    esac
    echo "run $run: not known at the moment: $why"
  fi
  case $state in
    SUCCEEDED) exit 0 ;;
    FAILED | CANCELED | SKIPPED) die 1 "run $run ended as $state; see $KFP_ENDPOINT/#/runs/details/$run" ;;
  esac
  sleep "$poll"
done
die 1 "run $run has not ended within $timeout s, and goes on"
