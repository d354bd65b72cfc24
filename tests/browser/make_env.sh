#!/bin/bash
# make_env.sh FOLDER: what tests/browser needs, in a folder of its own (default build/browser): playwright from
# PyPI and axe-core from npm. The browser is the system's: apt-get install chromium.
set -euo pipefail
folder=${1:-build/browser}
command -v chromium >/dev/null || { echo "chromium is not installed: apt-get install chromium" >&2; exit 1; }
mkdir -p "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "playwright>=1.40"
npm install --silent --no-fund --no-audit --prefix "$folder" "axe-core@4"
