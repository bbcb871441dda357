import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import secateurs


def modules() -> list[str]:
    found = pkgutil.walk_packages(secateurs.__path__, "secateurs.")
    return ["secateurs", *(m.name for m in found if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_run_as_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0


@pytest.mark.parametrize(
    "name",
    [
        *("global_prune", "gradient_prune", "pruned", "select", "sparsity", "Masks"),
        *("Diversified", "ensemble", "repair"),
    ],
)
def test_the_main_functions_have_an_example(name: str) -> None:
    item = getattr(secateurs, name)
    assert ">>>" in item.__doc__


@pytest.mark.parametrize(
    "name",
    [
        *("", ".attacks", ".transfer", ".evaluation", ".report", ".results", ".surrogates"),
        *(".training", ".zoo"),
    ],
)
def test_everything_public_says_what_it_is(name: str) -> None:
    module = importlib.import_module(f"secateurs{name}")
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        item = getattr(module, public)
        if callable(item):
            assert (item.__doc__ or "").strip(), public
