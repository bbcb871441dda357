#!/usr/bin/env bash
# The runs in results/transfer/cifar10*: four networks trained by examples/train_cifar10.py.
# Run from the root of the repository; SHARED is the folder with data/. The same command goes on where
# it was. On one core of an AMD EPYC: input_diversity about 20 minutes, passes 30, single 25,
# plain_192 5.
set -euo pipefail
SHARED=${SHARED:-../shared}
IMAGES=${IMAGES:-cifar10-images}
OUT=${OUT:-secateurs-results} # not into results/, which has the outcome
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
    --eps 12/255 --alpha 1/255 --limit 240 --batch-size 20 --threads 1 --output "$OUT/$1" "${@:2}"
}
SEARCH="--every 8 --search --search-images 40"

for run in "${@:-passes}"; do
  case $run in
    passes) # hold one out, four gradients a step, no other diversity
      transfer cifar10 $SEARCH --hold-one-out --method mi-logit --steps 48 --search-steps 24 --passes 4 \
        --recipe dwp --p-prune 1 --p-bern 0.05 0.1 ;;
    input_diversity) # hold one out, one gradient a step, with input diversity
      transfer cifar10_input_diversity $SEARCH --hold-one-out --method mi-di-logit --steps 24 \
        --recipe dwp rapa mup --p-prune 0.7 1 --p-bern 0.05 0.5 --rapa-p-bern 0.05 --mup-p-prune 0.15 ;;
    single) # each network alone
      transfer cifar10_single $SEARCH --method mi-logit --steps 48 --passes 4 --recipe dwp rapa \
        --p-prune 0.7 1 --p-bern 0.05 0.5 --rapa-p-bern 0.05 ;;
    plain_192) # as many gradients as in single, without diversification
      transfer cifar10_plain_192 --method mi-logit --steps 192 --every 48 --recipe plain ;;
    *) echo "unknown run $run: passes, input_diversity, single or plain_192" >&2; exit 2 ;;
  esac
done
