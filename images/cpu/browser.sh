#!/usr/bin/env bash
# The report is tested in a real browser: install Chromium where there is none and we may.
set -euo pipefail
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
else
  echo "the report's test needs a browser; install one first: sudo apt-get install chromium" >&2
  exit 2
fi
