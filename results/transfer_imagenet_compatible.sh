#!/usr/bin/env bash
# The runs in results/transfer/imagenet_compatible*. Run from the root of the repository; SHARED is the
# folder with data/ and models/. The same command goes on where it was. On one core of an AMD EPYC:
# hold_one_out about two and a half hours, passes 15 minutes.
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-results/transfer}
M=$SHARED/models
LITE0=timm:tf_efficientnet_lite0=$M/tf_efficientnet_lite0.safetensors
LITE1=timm:tf_efficientnet_lite1=$M/tf_efficientnet_lite1.safetensors
SQUEEZENET=torchvision:squeezenet1_1=$M/squeezenet1_1.safetensors

for run in "${@:-hold_one_out}"; do
  case $run in
    hold_one_out) # two networks attack together, the third is scored
      secateurs transfer --data "$SHARED/data/imagenet-compatible" --hold-one-out \
        --surrogates "$LITE0" "$LITE1" "$SQUEEZENET" --recipe dwp rapa mup \
        --p-prune 0.1 0.3 --p-bern 0.5 --granularity weight kernel --scope global layer \
        --rapa-p-bern 0.01 0.05 --mup-p-prune 0.05 0.15 \
        --search --search-images 16 --search-steps 20 --steps 60 --limit 64 --threads 1 \
        --output "$OUT/imagenet_compatible" ;;
    passes) # one network attacks, four gradients a step
      secateurs transfer --data "$SHARED/data/imagenet-compatible" \
        --surrogates "$LITE0" --targets "$LITE1" "$SQUEEZENET" --passes 4 --recipe dwp \
        --p-prune 0.3 --p-bern 0.5 --granularity weight kernel \
        --steps 40 --limit 32 --threads 1 --output "$OUT/imagenet_compatible_passes" ;;
    *) echo "unknown run $run: hold_one_out or passes" >&2; exit 2 ;;
  esac
done
