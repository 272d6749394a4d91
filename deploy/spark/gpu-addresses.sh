#!/bin/bash
# Spark's GPU discovery: prints the addresses of this machine's GPUs as {"name": "gpu", "addresses": ["0", "1"]}.
# Exits with 1 and a message where nvidia-smi is missing or fails, so that an executor without its GPU does not start.
set -eu -o pipefail
if ! indices=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>&1); then
  echo "gpu-addresses.sh: nvidia-smi failed: $indices" >&2
  exit 1
fi
# CUDA_VISIBLE_DEVICES renumbers: the first visible GPU is 0 to torch, whatever its index is to nvidia-smi
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  visible=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
else
  visible=$(grep -c '^[0-9]' <<<"$indices" || true)
fi
if [ "$visible" -eq 0 ]; then
  echo "gpu-addresses.sh: nvidia-smi lists no GPU" >&2
  exit 1
fi
addresses=$(seq 0 $((visible - 1)) | sed 's/.*/"&"/' | paste -sd, | sed 's/,/, /g')
echo "{\"name\": \"gpu\", \"addresses\": [$addresses]}"
