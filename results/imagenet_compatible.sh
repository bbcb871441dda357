#!/usr/bin/env bash
# The sweeps in results/imagenet_compatible: three trained networks, 300 ImageNet-Compatible images.
# Each file there is the results.csv of a folder that this script writes; NAME_squash.csv is that of
# squash/NAME.
# Run from the root of the repository; SHARED is the folder with data/ and models/.
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-secateurs-results}  # not into results/, which has the outcome
networks=(squeezenet1_1 tf_efficientnet_lite0 tf_efficientnet_lite1)

sweep() { # NAME FOLDER OPTION ...
  local arch=timm:$1
  [ "$1" = squeezenet1_1 ] && arch=torchvision:$1
  secateurs sweep --arch "$arch" --weights "$SHARED/models/$1.safetensors" \
    --data "$SHARED/data/imagenet-compatible" --output "$OUT/$2" "${@:3}"
}

# With the preprocessing that each network's own configuration names.
for name in "${networks[@]}"; do
  sweep "$name" "$name" --p-prune 0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 \
    --granularity weight kernel --scope global layer
done
secateurs report "${networks[@]/#/$OUT/}" --output "$OUT/networks"

# With the whole image squashed to 224 x 224, bicubic, for comparison with an independent run.
for name in squeezenet1_1 tf_efficientnet_lite0; do
  sweep "$name" "squash/$name" --p-prune 0 0.3 0.4 --granularity weight kernel --layers conv2d \
    --img-size 224 --crop-pct 1 --crop-mode squash --interpolation bicubic
done
