#!/usr/bin/env bash
# The run in results/transfer/imagenet_compatible: three networks, each attacked by the other two.
# Run from the root of the repository; SHARED is the folder with data/ and models/. The same command
# goes on where it was. About two and a half hours on one core of an AMD EPYC.
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-secateurs-results/imagenet_compatible} # not into results/, which has the outcome
M=$SHARED/models
secateurs transfer --data "$SHARED/data/imagenet-compatible" --hold-one-out \
  --surrogates "timm:tf_efficientnet_lite0=$M/tf_efficientnet_lite0.safetensors" \
  "timm:tf_efficientnet_lite1=$M/tf_efficientnet_lite1.safetensors" \
  "torchvision:squeezenet1_1=$M/squeezenet1_1.safetensors" \
  --recipe dwp rapa mup --p-prune 0.1 0.3 --p-bern 0.5 --granularity weight kernel \
  --scope global layer --rapa-p-bern 0.01 0.05 --mup-p-prune 0.05 0.15 \
  --search --search-images 16 --search-steps 20 --steps 60 --limit 64 --threads 1 --output "$OUT"
