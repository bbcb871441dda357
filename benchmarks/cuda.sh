#!/usr/bin/env bash
# Everything that is promised of CUDA, on a machine with one GPU, in under 8 minutes and without a
# network: the tests marked `cuda`, then selection, redraws, surrogates, gradient pruning and a sweep
# beside their peers. Needs Python with torch >= 2.11, torchvision, timm, cyclopts, rich, pytest,
# pytest-timeout, pytest-xdist and hypothesis; secateurs itself need not be installed.
#
#     OUT=FOLDER bash benchmarks/cuda.sh        a log for each part, and summary.txt
#
# PYTHON names the interpreter, default python3. The exit code is 1 if a part failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
out=${OUT:-results/cuda}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" SECATEURS_CACHE="$work/cache"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
failed=0
: >"$out/summary.txt"

# part NAME SECONDS COMMAND...: runs it with a limit, keeps what it printed, goes on if it fails.
part() {
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  ((code == 0)) || failed=1
  printf '%-22s exit %-3s %4s s\n' "$name" "$code" $((SECONDS - began)) | tee -a "$out/summary.txt"
}

benchmark() {
  local name=$1 limit=$2 script=$3
  shift 3
  part "$name" "$limit" "$python" "benchmarks/$script.py" --device cuda "$@"
}

# A folder of made-up images in ImageNet-Compatible layout.
make_images() {
  "$python" - "$1" <<'END'
import pathlib, sys
import torch
from torchvision.io import write_png

folder = pathlib.Path(sys.argv[1])
(folder / "images").mkdir(parents=True)
generator = torch.Generator().manual_seed(0)
lines = ["ImageId,TrueLabel,TargetClass"]
for number in range(300):
    coarse = torch.rand(1, 3, 20, 20, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (299, 299), mode="bilinear")[0]
    write_png((255 * image).byte(), str(folder / "images" / f"{number:04}.png"), 1)
    lines.append(f"{number:04},{number % 1000 + 1},{(number + 500) % 1000 + 1}")
(folder / "images.csv").write_text("\n".join(lines) + "\n")
END
}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "no CUDA device here" >&2
  exit 2
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader |
  tee -a "$out/summary.txt"
"$python" -c 'import sys, torch, torchvision, timm
print("torch", torch.__version__, "torchvision", torchvision.__version__, "timm", timm.__version__,
      "Python", sys.version.split()[0])' | tee -a "$out/summary.txt"

part tests 150 "$python" -m pytest -p no:cacheprovider -n 0 -m cuda --tb=short tests/test_cuda.py \
  tests/training/test_hold_cuda.py tests/acceleration/test_accelerated_on_cuda.py
benchmark selection 40 selection --rounds 5
benchmark selection_dtypes 40 selection --table dtypes --rounds 3
benchmark redraw 30 redraw
benchmark redraw_graph 30 redraw --graph
benchmark diversified 40 diversified
benchmark diversified_memory 20 diversified --table memory
benchmark gradient 30 gradient --batch-size 64
if "$python" -c 'import cyclopts' 2>/dev/null; then
  make_images "$work/images"
  benchmark sweep 240 sweep --arch torchvision:resnet50 --data "$work/images" --repeat 4 --rounds 1 \
    --single-runs 1
else
  echo "sweep                  left out: cyclopts is not installed" | tee -a "$out/summary.txt"
fi
exit $failed
