"""Imports go one way, and what is heavy loads when it is used."""

import ast
import copy
import functools
import graphlib
import inspect
import pickle
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import secateurs
from result_rows import make_row
from secateurs.repair import pipeline
from secateurs.results import Results

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
    {"_console", "torch_prune"},
    {"_progress"},
    {"acceleration", "report"},
    {"surrogates"},
    {"training"},
    {"repair"},
    {"zoo"},
    {"evaluation", "attacks", "checkpoint"},
    {"transfer"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
OPTIONAL = (
    *(
        "PIL",
        "torchvision",
        "timm",
        "transformers",
        "matplotlib",
        "sklearn",
        "scipy",
        "platformdirs",
    ),
    *("cyclopts", "attrs", "rich", "zstandard", "tabulate"),
    *("lightning", "accelerate", "pyarrow"),
    *("plotly", "jinja2", "tensorboard", "trackio", "wandb", "mlflow"),
)
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")

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


def test_no_two_classes_share_a_name() -> None:
    defined = (
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    twice = {name for name, count in Counter(defined).items() if count > 1}
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
                "report": {"results", "errors", "_io", "_console", "_version"},
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
    there = declared("hf", "lightning", "parquet", "report", *TRACKERS)
    for name, path in files().items():
        for imported in imports(path):
            package = imported.split(".")[0]
            if package == "secateurs" or package in sys.stdlib_module_names:
                continue
            assert DISTRIBUTIONS.get(package, package) in there, f"{name} imports {imported}"


BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])

sys.meta_path.insert(0, Absent())
"""


def run(program: str, folder: Path) -> str:
    """What a program prints in a process where none of the optional packages is installed."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_else(tmp_path: Path) -> None:
    assert run("import secateurs; print('torch' in sys.modules)", tmp_path) == "False\n"


def test_the_library_alone_needs_torch_numpy_and_safetensors(tmp_path: Path) -> None:
    program = """
import pickle, torch, secateurs as sc
from safetensors.torch import save_file
from secateurs import *

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
assert sc.select(net, 0.5).count == 32
assert pickle.loads(pickle.dumps(sc.select(net, 0.5).draw(1.0))) is not None
with pruned(net, 0.5):
    assert sparsity(net).ratio == 0.5
assert sc.training.OneShot(0.5).last == 0
surrogate = sc.surrogates.dwp(net, p_prune=0.5, p_bern=0.5, seed=0)
assert surrogate(torch.rand(2, 16)).shape == (2, 4)
save_file(net.state_dict(), "in.safetensors")
sc.checkpoint.prune_checkpoint("in.safetensors", "out.safetensors", 0.5)
assert set(sc.load_checkpoint("out.safetensors")) == {"1.weight", "1.bias"}
data = [(torch.rand(8, 16), torch.randint(4, (8,)))]
assert len(sc.evaluation.sweep(net, data, p_prune=[0, 0.5], output="rows")) == 2
print("done")
"""
    assert run(program, tmp_path) == "done\n"


NEEDING = {
    "sc.zoo.load_data('here', preprocess=print)": (
        "reading images needs pillow: pip install pillow"
    ),
    "sc.zoo.load_model('resnet18', weights='random')": (
        "a model of torchvision needs torchvision: pip install torchvision"
    ),
    "sc.checkpoint.prune_checkpoint('in.safetensors', 'o.zst', 0.5, compress=True)": (
        "a .safetensors.zst file needs zstandard: pip install zstandard"
    ),
    "sc.load_checkpoint('in.safetensors.zst')": (
        "a .safetensors.zst file needs zstandard: pip install zstandard"
    ),
    "sc.training.LightningPruning": (
        "LightningPruning needs lightning: pip install 'secateurs[lightning]'"
    ),
    "from secateurs.training import TrainerPruning": (
        "TrainerPruning needs transformers: pip install 'secateurs[hf]'"
    ),
    "sc.transfer": ("secateurs.transfer needs pillow: pip install pillow"),
    "sc.report.plot_rows(sc.results.read_rows('rows'), 'plot')": (
        "cannot draw plot: a plot needs matplotlib: pip install matplotlib"
    ),
    "sc.report.print_table(sc.results.read_rows('rows'))": (
        "a table in a terminal needs rich: pip install rich"
    ),
    "sc.report.write_page(['rows'], 'page.html')": (
        "a page needs plotly: pip install 'secateurs[report]'"
    ),
}
"""What cannot be done where an optional package is absent, and what the error says."""


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    with Results(tmp_path / "rows") as results:
        results.add_all([make_row(0.0), make_row(0.5)])
    save_file({"fc.weight": torch.ones(2, 2)}, tmp_path / "in.safetensors")
    (tmp_path / "in.safetensors.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    tried = "".join(
        f"\ntry: {program}\nexcept sc.FailureError as error: print(error)" for program in NEEDING
    )
    said = run(f"import secateurs as sc{tried}", tmp_path).splitlines()
    assert said == [*NEEDING.values()]


def test_the_command_line_says_what_it_needs(tmp_path: Path) -> None:
    tried = """
from secateurs.cli import main
sys.stderr = sys.stdout
try: main(["sweep"])
except SystemExit as end: assert end.code == 1
"""
    said = "secateurs: the command line needs cyclopts: pip install cyclopts\n"
    assert run(tried, tmp_path) == said


def test_names_are_loaded_from_where_type_checkers_read_them() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    guarded = next(
        node.body
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    homes = {
        alias.name: node.module.partition(".")[2]
        for node in guarded
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert homes.pop("CallablePackage") == "repair"  # what it is to type checkers
    assert {name: home for name, home in homes.items() if home} == secateurs._HOME_OF
    packages = {name for name, home in homes.items() if not home}
    assert packages | {"repair"} == set(secateurs._MODULES)
    assert set(secateurs.__all__) <= set(dir(secateurs))
    for name in {*secateurs.__all__, *homes}:
        assert getattr(secateurs, name) is getattr(secateurs, name)
    with pytest.raises(AttributeError, match="no attribute 'prunedd'"):
        secateurs.prunedd  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_know_all_that_the_package_repair_has() -> None:
    tree = ast.parse((SOURCE / "repair" / "__init__.py").read_text())
    aliases = [a for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names]
    known = vars(secateurs.repair.CallablePackage)
    assert {a.name for a in aliases if a.name == a.asname} == {n for n in known if n[0] != "_"}
    assert inspect.signature(secateurs.repair) == inspect.signature(pipeline.repair)


def test_the_package_repair_is_copied_and_pickled_as_a_function_is() -> None:
    step = functools.partial(secateurs.repair, steps=["batchnorm"])
    for one in (copy.copy(step), copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        assert one.func is secateurs.repair
