"""Commands to copy, which the help of each command ends with."""

EXAMPLES = {
    "sweep": (
        "secateurs sweep",
        "secateurs sweep --arch resnet18 --data imagenet --p-prune 0 0.3 0.5 --granularity kernel",
        "secateurs sweep -a timm:resnet50.a1_in1k -d imagenet --score magnitude lamp --limit 5000",
        "secateurs sweep --config runs/first --p-bern 0.5 -o runs/second",
    ),
    "retrain": (
        "secateurs retrain",
        "secateurs retrain --arch lenet300 --compression 12 --seeds 0 1 2",
        "secateurs retrain --arch resnet18 --data imagenet --ratio 0.8 --epochs 10",
    ),
    "repair": (
        "secateurs repair",
        "secateurs repair --arch resnet18 --data photos --p-prune 0.7 -o pruned.safetensors",
    ),
    "sensitivity": (
        "secateurs sensitivity",
        "secateurs sensitivity --arch resnet18 --data photos --unlabelled --allocate 0.5",
    ),
    "budget": (
        "secateurs budget",
        "secateurs budget --arch resnet18 --data imagenet --max-drop 1.0",
    ),
    "speed": (
        "secateurs speed",
        "secateurs speed --arch timm:vit_small_patch16_224 --weights random",
    ),
    "compare": ("secateurs compare runs/a runs/b",),
    "transfer": (
        "secateurs transfer",
        "secateurs transfer --surrogates resnet50 densenet121 --targets vgg16 --data images",
    ),
    "prune": (
        "secateurs prune model.safetensors --p-prune 0.5 -o pruned.safetensors",
        "secateurs prune checkpoint --scope 2:4 --exclude lm_head -o pruned",
        "secateurs prune model.pt --p-prune 0.9 --dry-run",
    ),
    "report": (
        "secateurs report secateurs-results/*",
        "secateurs report runs/a runs/b -o both --markdown",
    ),
}


def examples_of(command: str) -> str:
    """The last lines of a command's help."""
    return "\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES.get(command, ()))))
