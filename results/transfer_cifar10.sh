#!/usr/bin/env bash
# The run in results/transfer/cifar10: four networks trained by examples/train_cifar10.py, each
# attacked by the other three. Run from the root of the repository; SHARED is the folder with data/.
# The same command goes on where it was. About half an hour on one core of an AMD EPYC.
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-results/transfer/cifar10}
IMAGES=${IMAGES:-cifar10-images}
W=results/cifar10
export PYTHONPATH=examples
python examples/train_cifar10.py --data "$SHARED/data/cifar10-jpeg" --export-images "$IMAGES" \
  --count 1000
secateurs transfer --data "$IMAGES" --hold-one-out \
  --surrogates "cifar10_networks:resnet=$W/resnet.safetensors" \
  "cifar10_networks:vgg=$W/vgg.safetensors" \
  "cifar10_networks:mobilenet=$W/mobilenet.safetensors" \
  "cifar10_networks:convnext=$W/convnext.safetensors" \
  --recipe dwp rapa mup --p-prune 0.5 0.9 --p-bern 0.5 0.9 --rapa-p-bern 0.05 0.1 \
  --mup-p-prune 0.15 --method mi-di-logit --eps 12/255 --alpha 1/255 --steps 24 --every 8 \
  --search --search-images 40 --limit 240 --batch-size 20 --threads 1 --output "$OUT"
