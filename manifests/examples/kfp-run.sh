#!/usr/bin/env bash
# Run alignment.yaml from CI, and fail where the run fails: the kfp command itself ends well even then.
#   KFP_ENDPOINT=... KFP_NAMESPACE=... EXPERIMENT=... RUN_NAME=... kfp-run.sh key=value ...
# Values are read as JSON: text that looks like a number wants quotes of its own, 'sampler_gpus="0"'.
# TIMEOUT and POLL, in seconds, bound the wait.
set -euo pipefail
timeout=${TIMEOUT:-86400} poll=${POLL:-30}
kfp() { command kfp --endpoint "$KFP_ENDPOINT" --namespace "$KFP_NAMESPACE" --output json "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# Above the JSON, kfp prints links; and it ends well even when the run has failed.
run=$(kfp run create --experiment-name "$EXPERIMENT" --run-name "$RUN_NAME" --package-file alignment.yaml "$@" \
  | sed -n '/^{/,$p' | field run_id)
for ((waited = 0; waited <= timeout; waited += poll)); do
  state=$(kfp run get "$run" | field state)
  echo "run $run: $state"
  case $state in
    SUCCEEDED) exit 0 ;;
    FAILED | CANCELED | SKIPPED) exit 1 ;;
  esac
  sleep "$poll"
done
echo "run $run has not ended within $timeout s" >&2
exit 1
