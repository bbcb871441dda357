#!/usr/bin/env bash
# The runs in results/transfer/cifar10*: four networks trained by examples/train_cifar10.py.
# Run from the root of the repository; SHARED is the folder with data/. The same command goes on where
# it was. On one core of an AMD EPYC: hold_one_out about 25 minutes, single and any_size 5, passes 15.
set -euo pipefail
SHARED=${SHARED:-../shared}
IMAGES=${IMAGES:-cifar10-images}
OUT=${OUT:-results/transfer}
W=results/cifar10
export PYTHONPATH=examples
[ -d "$IMAGES" ] || python examples/train_cifar10.py --data "$SHARED/data/cifar10-jpeg" \
  --export-images "$IMAGES" --count 1000

transfer() { # FOLDER OPTION ...
  secateurs transfer --data "$IMAGES" \
    --surrogates "cifar10_networks:resnet=$W/resnet.safetensors" \
    "cifar10_networks:vgg=$W/vgg.safetensors" \
    "cifar10_networks:mobilenet=$W/mobilenet.safetensors" \
    "cifar10_networks:convnext=$W/convnext.safetensors" \
    --eps 12/255 --alpha 1/255 --steps 24 --every 8 --search --search-images 40 --limit 240 \
    --batch-size 20 --threads 1 --output "$OUT/$1" "${@:2}"
}

for run in "${@:-hold_one_out}"; do
  case $run in
    hold_one_out)
      transfer cifar10 --hold-one-out --method mi-di-logit --recipe dwp rapa mup \
        --p-prune 0.5 0.9 --p-bern 0.5 0.9 --rapa-p-bern 0.05 0.1 --mup-p-prune 0.15 ;;
    single)
      transfer cifar10_single --method mi-logit --recipe dwp rapa \
        --p-prune 0.7 0.9 --p-bern 0.5 --rapa-p-bern 0.05 ;;
    any_size)
      transfer cifar10_any_size --method mi-logit --recipe dwp --p-prune 1 --p-bern 0.02 0.05 0.1 ;;
    passes)
      transfer cifar10_passes --method mi-logit --recipe dwp --p-prune 1 --p-bern 0.05 0.1 0.2 \
        --passes 4 ;;
    *) echo "unknown run $run: hold_one_out, single, any_size or passes" >&2; exit 2 ;;
  esac
done
