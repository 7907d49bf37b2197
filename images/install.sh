#!/usr/bin/env bash
# pip inside a build, with the versions of images/cpu/requirements.txt: install.sh ARGUMENTS-OF-PIP-INSTALL, where
# @EXTRA stands for what that extra of the package requires, and @ for what the package always requires.
# Packages come from the wheelhouse that build.sh filled, and then from nowhere else; without one, from public indexes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

arguments=()
for word in "$@"; do
  case $word in
    @*) mapfile -t -O "${#arguments[@]}" arguments < <(python3 "$here/extra.py" "$here/.." ${word#@}) ;;
    *) arguments+=("$word") ;;
  esac
done

from=()
[ ! -d "$here/wheelhouse" ] || from=(--no-index --find-links "$here/wheelhouse")
python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir \
  --constraint <("$here/pins.sh" "${VARIANT:-cpu}") "${from[@]}" "${arguments[@]}"
