"""Imports go one way, and what is heavy loads when it is used."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import secateurs

SOURCE = Path(secateurs.__file__).parent
# Each part may import those above it; evaluation and transfer do not import each other.
ORDER = [
    {"errors", "_version"},
    {"_io"},
    {"_validation", "_tensors", "distributed", "results", "outputs", "provenance"},
    {"originals"},
    {"parameters"},
    {"masks"},
    {"criteria"},
    {"selection"},
    {"gradient_pruning"},
    {"prior_pruning"},
    {"pruning"},
    {"repair"},
    {"surrogates", "_console"},
    {"_progress", "report"},
    {"zoo"},
    {"evaluation", "attacks", "checkpoint"},
    {"transfer"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
HEAVY = ("torchvision", "timm", "transformers", "matplotlib", "sklearn", "typer", "rich", "scipy")

# Distributions that are called otherwise than what is imported.
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}


def imports(path: Path) -> list[str]:
    """What a file imports, anywhere in it, by full name."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@functools.cache
def files() -> dict[str, Path]:
    names = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["secateurs", *path.relative_to(SOURCE).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def part_of(module: str) -> str | None:
    """``secateurs.zoo.models`` belongs to zoo; None for other packages."""
    first, _, rest = module.partition(".")
    part = rest.split(".")[0]
    if first != "secateurs":
        return None
    # ``from secateurs import pruned`` takes a name from the package itself.
    return part if f"secateurs.{part}" in files() else "__init__"


def test_every_part_has_its_place() -> None:
    parts = {part_of(name) for name in files()}
    assert parts <= LEVEL.keys(), "give new parts a place in ORDER"


def test_no_two_modules_share_a_name() -> None:
    names = [name.rpartition(".")[2].lstrip("_") for name in files()]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice


def test_few_modules_lie_at_the_top() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 12


def test_imports_go_one_way() -> None:
    for name, path in files().items():
        own = part_of(name)
        assert own is not None
        for imported in imports(path):
            part = part_of(imported)
            if part is None or part == own:
                continue
            assert LEVEL[part] <= LEVEL[own], f"{name} imports {imported}"
            leaf = {
                "results": {"errors", "_version", "_io"},
                "report": {"results", "errors", "_io", "_console"},
            }
            assert part in leaf.get(own, {part}), f"{name} imports {imported}"
            assert {own, part} != {"evaluation", "transfer"}


def test_no_module_imports_itself_by_a_detour() -> None:
    names = files()
    graph = {
        name: {m if m in names else m.rpartition(".")[0] for m in imports(path)}
        for name, path in names.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_the_core_imports_torch_numpy_and_safetensors_alone() -> None:
    allowed = {"torch", "numpy", "safetensors", "secateurs", *sys.stdlib_module_names}
    for name, path in files().items():
        part = part_of(name)
        assert part is not None
        if LEVEL[part] > LEVEL["pruning"]:
            continue
        for imported in imports(path):
            package = imported.split(".")[0]
            assert package in allowed, f"{name} imports {imported}"
            assert package != "torch" or part != "results", f"{name}: rows are read without torch"


def declared(*extras: str) -> set[str]:
    """The distributions that pyproject.toml names, with those of some extras."""
    text = (SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    return {re.split(r"[^\w.-]", word, maxsplit=1)[0] for words in lists for word in words}


def test_what_is_imported_is_declared() -> None:
    there = declared("hf")
    for name, path in files().items():
        for imported in imports(path):
            package = imported.split(".")[0]
            if package == "secateurs" or package in sys.stdlib_module_names:
                continue
            assert DISTRIBUTIONS.get(package, package) in there, f"{name} imports {imported}"


def test_heavy_packages_load_on_use() -> None:
    code = (
        "import sys, secateurs; secateurs.pruned, secateurs.select, secateurs.Masks; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "[]"
