#!/usr/bin/env bash
# A virtual environment with what users would pick instead, for the benchmarks that run it beside us:
#   benchmarks/peers/make.sh runs/peers
set -euo pipefail
venv="${1:?which folder}"
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet torch==2.13.0 transformers trl datasets
"$venv/bin/pip" list 2>/dev/null | grep -iE '^(torch|transformers|trl|accelerate|datasets) '
