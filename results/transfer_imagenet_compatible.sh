#!/usr/bin/env bash
# The runs in results/transfer/imagenet_compatible*: three networks.
# Run from the root of the repository; SHARED is the folder with data/ and models/. The same command
# goes on where it was. On one core of an AMD EPYC: one_pass about two and a half hours, any_size
# half of one, single one and a half, passes one, lite0 a quarter.
set -euo pipefail
SHARED=${SHARED:-../shared}
OUT=${OUT:-secateurs-results} # not into results/, which has the outcome
M=$SHARED/models

LITE0=timm:tf_efficientnet_lite0=$M/tf_efficientnet_lite0.safetensors
LITE1=timm:tf_efficientnet_lite1=$M/tf_efficientnet_lite1.safetensors
SQUEEZENET=torchvision:squeezenet1_1=$M/squeezenet1_1.safetensors

attack() { # FOLDER OPTION ...
  secateurs transfer --data "$SHARED/data/imagenet-compatible" --threads 1 --output "$OUT/$1" "${@:2}"
}

transfer() { # FOLDER OPTION ...: three networks, settings chosen on 16 images
  attack "$1" --surrogates "$LITE0" "$LITE1" "$SQUEEZENET" \
    --search --search-images 16 --search-steps 20 --limit 64 "${@:2}"
}

lite0() { # FOLDER OPTION ...: one network, the same 16 images
  attack "$1" --surrogates "$LITE0" --targets "$LITE1" "$SQUEEZENET" \
    --recipe dwp --p-prune 1 --steps 20 --limit 16 "${@:2}"
}

for run in "${@:-one_pass}"; do
  case $run in
    one_pass) # hold one out, one gradient a step
      transfer imagenet_compatible --hold-one-out --recipe dwp rapa mup --p-prune 0.1 0.3 --p-bern 0.5 \
        --granularity weight kernel --scope global layer --rapa-p-bern 0.01 0.05 \
        --mup-p-prune 0.05 0.15 --steps 60 ;;
    any_size) # hold one out, one gradient a step, weights of any size
      transfer imagenet_compatible_any_size --hold-one-out --recipe dwp --p-prune 1 \
        --p-bern 0.0025 0.005 0.01 --steps 20 ;;
    single) # each network alone, no input diversity, four gradients a step
      transfer imagenet_compatible_single --method mi-ti-logit --recipe dwp --p-prune 0.3 0.5 1 \
        --p-bern 0.005 0.5 --passes 4 --steps 60 ;;
    passes) # hold one out, four gradients a step; the setting is the one that single chose on the 16
      # images, so this search only sets them aside
      transfer imagenet_compatible_passes --hold-one-out --recipe dwp --p-prune 1 --p-bern 0.005 \
        --passes 4 --steps 20 --search-steps 1 ;;
    lite0) # one network, the 16 images of the search: one gradient, and four with input diversity
      lite0 imagenet_compatible_one_gradient --method mi-ti-logit --p-bern 0.0025 0.005 0.01 0.02
      lite0 imagenet_compatible_input_diversity --method mi-ti-di-logit --p-bern 0.005 --passes 4 ;;
    *) echo "unknown run $run: one_pass, any_size, single, passes or lite0" >&2; exit 2 ;;
  esac
done
