#!/usr/bin/env bash
# Compiles the reports of this folder again, or only those named: about five minutes each.
#
#   docs/compile/make.sh [REPORT ...]

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
WANTED=("$@")

# report NAME PRESET TOPOLOGY [FLAG ...]
report() {
  local name=$1 preset=$2 topology=$3
  if [[ ${#WANTED[@]} -gt 0 && " ${WANTED[*]} " != *" $name "* ]]; then
    return
  fi
  python -m cai_jax.compile "--config=configs/rlaif.py:$preset" "--topology=$topology" "${@:4}" \
    >"docs/compile/$name.md"
}

report colab-v5e-1x1 colab v5e:1x1
report smollm2-1.7b-v5e-4x4 smollm2-1.7b v5e:4x4
report llama3-8b-v5e-8x16 llama3-8b v5e:8x16
report llama3-8b-v5e-16x16 llama3-8b v5e:16x16
report llama3-70b-v5p-4x4x8 llama3-70b v5p:4x4x8
report paper-v5p-4x4x8 paper v5p:4x4x8

# Smaller slices: smaller micro-batches, then models offloaded to the hosts, then low-rank updates.
report llama3-8b-v5e-4x8 llama3-8b v5e:4x8 \
  --config.generation.batch_size=64 \
  --config.sl_train.micro_batches=8 --config.pm_train.micro_batches=8 --config.rl.micro_batches=4
report llama3-8b-v5e-4x4 llama3-8b v5e:4x4 \
  --config.generation.batch_size=64 --config.generation.score_batch_size=32 \
  --config.sl_train.micro_batches=32 --config.pm_train.micro_batches=32 \
  --config.rl.micro_batches=16 --config.rl.offload=True
report llama3-8b-lora-v5e-2x2 llama3-8b v5e:2x2 \
  --config.mesh.decode_tensor=4 \
  --config.generation.batch_size=16 --config.generation.score_batch_size=8 \
  --config.sl_train.lora.rank=16 --config.pm_train.lora.rank=16 --config.rl.lora.rank=16 \
  --config.sl_train.micro_batches=128 --config.pm_train.micro_batches=128 \
  --config.rl.batch_size=128 --config.rl.micro_batches=32 --config.rl.offload=True
