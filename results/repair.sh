#!/usr/bin/env bash
# The repairs in results/repair: each file there is the results.csv of a folder that this script
# writes. No label decides anything; those of --test-data score, for the table alone.
# Run from the root of the repository; SHARED is the folder with data/ and models/. With names,
# only these runs: bash results/repair.sh resnet20_90 mlpnet_98_0
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-secateurs-results}  # not into results/, which has the outcome
asked=("$@")

repair() { # NAME OPTION ...
  [ ${#asked[@]} = 0 ] || [[ " ${asked[*]} " = *" $1 "* ]] || return 0
  secateurs repair -o "$OUT/$1.safetensors" "${@:2}"
}

# Small convolutional networks with BatchNorm: statistics and least squares, 1,024 images.
for ratio in 70 80 90; do
  repair "resnet20_$ratio" --arch resnet20 --weights "$SHARED/models/resnet20_cifar10.safetensors" \
    --data "$SHARED/data/cifar10-jpeg" --images 1024 --test-data "$SHARED/data/cifar10-lossless" \
    --p-prune "0.$ratio" --score magnitude --steps batchnorm reconstruct --damping 0.1 -b 64
done

# At higher ratios it is worth choosing anew which weights go.
for ratio in 80 90; do
  repair "resnet20_${ratio}_sparsegpt" --arch resnet20 --weights "$SHARED/models/resnet20_cifar10.safetensors" \
    --data "$SHARED/data/cifar10-jpeg" --images 1024 --test-data "$SHARED/data/cifar10-lossless" \
    --p-prune "0.$ratio" --score magnitude --steps batchnorm sparsegpt reconstruct -b 64
done

# The same network at 90%: from fewer images, and by fewer steps.
at_90() { # NAME OPTION ...
  repair "resnet20_90_$1" --arch resnet20 --weights "$SHARED/models/resnet20_cifar10.safetensors" \
    --data "$SHARED/data/cifar10-jpeg" --test-data "$SHARED/data/cifar10-lossless" \
    --p-prune 0.9 --damping 0.1 -b 64 "${@:2}"
}
for images in 8 32 128; do
  at_90 "$images" --images $images --score magnitude --steps batchnorm reconstruct
done
at_90 batchnorm --images 1024 --score magnitude --steps batchnorm
at_90 lamp --images 1024 --score lamp --steps batchnorm

# Small networks of linear layers: distillation on all training images, without their labels.
for run in 90_0 95_0 98_0 98_1 98_2; do
  repair "mlpnet_$run" --arch mlpnet --weights "$SHARED/models/mlpnet_mnist.safetensors" \
    --data mnist --test-data mnist --data-root "$SHARED/data" --images 60000 \
    --p-prune "0.${run%_*}" --score lamp --steps distill --iterations 4000 --lr 0.03 \
    --distill-batch-size 256 -b 1000 --seed "${run#*_}"
done

# Networks for ImageNet, 128 images: statistics where there is BatchNorm, mean and scale of each
# output channel and least squares where there is none. The ratios for SqueezeNet come from
# secateurs sensitivity --arch torchvision:squeezenet1_1 --weights ... --data CALIBRATION \
#   --unlabelled --ratios 0.3 0.5 0.65 0.8 0.9 --repair sparsegpt channels reconstruct --allocate 0.6
# and the repaired ones for EfficientNet from --repair batchnorm reconstruct --allocate 0.5.
imagenet() { # NAME ARCH OPTION ...
  repair "$1" --arch "$2" --weights "$SHARED/models/${2#*:}.safetensors" \
    --data "$SHARED/data/imagenet-compatible-calibration" \
    --test-data "$SHARED/data/imagenet-compatible" "${@:3}"
}
lite=tf_efficientnet_lite
imagenet ${lite}0_50_sensitivity timm:${lite}0 --score magnitude --steps batchnorm \
  --ratios-from results/repair/${lite}0_ratios.json
imagenet ${lite}0_50_reconstruct timm:${lite}0 --score magnitude --steps batchnorm reconstruct \
  --damping 1 --ratios-from results/repair/${lite}0_ratios.json
imagenet ${lite}0_50_repaired_sensitivity timm:${lite}0 --score magnitude --damping 1 \
  --steps batchnorm reconstruct --ratios-from results/repair/${lite}0_repaired_ratios.json
imagenet ${lite}1_50_sensitivity timm:${lite}1 --score magnitude --steps batchnorm \
  --ratios-from results/repair/${lite}1_ratios.json
imagenet ${lite}1_50_reconstruct timm:${lite}1 --score magnitude --steps batchnorm reconstruct \
  --damping 1 --ratios-from results/repair/${lite}1_ratios.json
imagenet squeezenet1_1_60 torchvision:squeezenet1_1 --p-prune 0.6 --steps channels reconstruct \
  --damping 0.01
imagenet squeezenet1_1_60_sensitivity torchvision:squeezenet1_1 --score magnitude \
  --steps sparsegpt channels reconstruct --ratios-from results/repair/squeezenet1_1_ratios.json
imagenet ${lite}1_50 timm:${lite}1 --p-prune 0.5 --steps batchnorm
imagenet ${lite}0_50 timm:${lite}0 --p-prune 0.5 --steps batchnorm

# Curves: each ratio as it is, and repaired; then all of them in one plot.
curve() { # NAME ARCH WEIGHTS OPTION ...
  [ ${#asked[@]} = 0 ] || [[ " ${asked[*]} " = *" $1 "* ]] || return 0
  secateurs sweep --arch "$2" --weights "$SHARED/models/$3.safetensors" --output "$OUT/$1" \
    --p-prune 0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 "${@:4}"
}
curve curve_resnet20 resnet20 resnet20_cifar10 --data "$SHARED/data/cifar10-lossless" \
  --calibration "$SHARED/data/cifar10-jpeg" --repair batchnorm sparsegpt reconstruct
curve curve_mlpnet mlpnet mlpnet_mnist --data mnist --data-root "$SHARED/data" --score lamp \
  --calibration mnist --calibration-images 10000 --repair distill
scored=(--data "$SHARED/data/imagenet-compatible" --score lamp
  --calibration "$SHARED/data/imagenet-compatible-calibration")
curve curve_${lite}0 timm:${lite}0 ${lite}0 "${scored[@]}" --repair batchnorm
curve curve_${lite}1 timm:${lite}1 ${lite}1 "${scored[@]}" --repair batchnorm
curve curve_squeezenet1_1 torchvision:squeezenet1_1 squeezenet1_1 "${scored[@]}" \
  --repair sparsegpt channels reconstruct
if [ ${#asked[@]} = 0 ] || [[ " ${asked[*]} " = *" curves "* ]]; then
  secateurs report "$OUT"/curve_*/ --output "$OUT/curves"
fi
