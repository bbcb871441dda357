"""What the output folder of a sweep accepts: the same configuration, and no other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_nets import GRID, SAMPLES, Images, Net, Stop, Stopping, loader, network
from torch import Tensor

from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Provenance, accumulate_gradients, sweep
from secateurs.parameters.target import Target
from secateurs.results import Results, read_rows


def test_a_finished_sweep_is_not_run_again(tmp_path: Path) -> None:
    rows = sweep(network(), loader(), output=tmp_path, **GRID)
    model, images = network(), Images()
    assert sweep(model, loader(images, batch_size=3), output=tmp_path, **GRID) == rows
    assert (model.passes, images.reads) == (0, SAMPLES)


def test_killed_after_the_rows_and_before_the_progress_was_removed(tmp_path: Path) -> None:
    rows = sweep(network(), loader(), output=tmp_path, **GRID)
    with Results(tmp_path) as results:
        results.save_progress({"dense": {"seen": 3}})
    assert sweep(network(), loader(), output=tmp_path, **GRID) == rows
    assert not (tmp_path / "progress.json").exists()


def test_overwrite_runs_again(tmp_path: Path) -> None:
    sweep(network(), loader(), output=tmp_path, p_prune=[0, 0.1])
    model = network()
    rows = sweep(model, loader(), output=tmp_path, overwrite=True, p_prune=0.5)
    assert model.passes == 6
    assert [row.p_prune for row in read_rows(tmp_path)] == [0.5]
    assert read_rows(tmp_path) == rows


def changed_weights() -> Net:
    model = network()
    with torch.no_grad():
        model.head.bias += 1
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p_prune": [0, 0.5]}, r"p_prune: there \[0.0, 0.5, 0.9\], now \[0.0, 0.5\]"),
        ({"granularity": "kernel"}, r'granularity: there \["weight"\], now \["kernel"\]'),
        ({"seed": 1}, "seed: there 0, now 1"),
        ({"draws": 3}, "draws: there 2, now 3"),
        ({"amp": True}, "amp: there false, now true"),
        ({"exclude": "head"}, 'exclude: there "", now "head"'),
        ({"model": changed_weights()}, "weights_sha256: there"),
        ({"loader": loader(Images(30))}, "images: there 46, now 30"),
        ({"provenance": Provenance(data="other")}, 'data: there "", now "other"'),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_sweep_in_the_folder_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str, finished: bool
) -> None:
    given: dict[str, Any] = {"model": network(), "loader": loader(), **GRID}
    if finished:
        sweep(**given, output=tmp_path)
    else:
        with pytest.raises(Stop):
            sweep(
                **(given | {"model": Stopping(7)}),
                output=tmp_path,
                provenance=Provenance(model="Net"),
            )
    held = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        sweep(**(given | change), output=tmp_path)
    assert "give another output, or overwrite=True" in str(caught.value)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == held


def test_another_function_or_gradient_of_the_same_name_is_refused(tmp_path: Path) -> None:
    def make(factor: float) -> Any:
        def mine(target: Target) -> Tensor:
            return target.weight.abs() ** factor * (factor if target.is_convolution else 1.0)

        return mine

    sweep(network(), loader(), p_prune=0.5, score=make(2.0), output=tmp_path / "function")
    sweep(network(), loader(), p_prune=0.5, score=make(2.0), output=tmp_path / "function")
    with pytest.raises(InvalidArgumentError, match=r"candidates.weight global mine: there"):
        sweep(network(), loader(), p_prune=0.5, score=make(0.3), output=tmp_path / "function")

    def with_gradients(count: int) -> Net:
        model = network()
        accumulate_gradients(model, loader(Images(count)))
        return model

    sweep(with_gradients(20), loader(), p_prune=0.5, score="taylor", output=tmp_path / "taylor")
    with pytest.raises(InvalidArgumentError, match=r"candidates.weight global taylor: there"):
        sweep(with_gradients(9), loader(), p_prune=0.5, score="taylor", output=tmp_path / "taylor")


def test_gradients_that_the_provenance_names_need_not_be_equal_to_the_bit(tmp_path: Path) -> None:
    # On a GPU they are not; the images that they come from are in the configuration instead.
    model = network()
    accumulate_gradients(model, loader())
    given: dict[str, Any] = {"p_prune": 0.5, "score": "taylor", "output": tmp_path}
    sweep(model, loader(), provenance=Provenance(score_data="46 images"), **given)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    sweep(model, loader(), provenance=Provenance(score_data="46 images"), **given)
    with pytest.raises(InvalidArgumentError, match="score_data: there"):
        sweep(model, loader(), provenance=Provenance(score_data="20 images"), **given)


@pytest.mark.parametrize(
    "wrong", [{"include": "heads"}, {"layers": "conv3d"}, {"score": "gradient"}, {"p_brune": 1}]
)
def test_arguments_that_are_refused_leave_no_trace(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        sweep(network(), loader(), output=tmp_path, p_prune=0.5, **wrong)
    assert list(tmp_path.iterdir()) == []
    sweep(network(), loader(), output=tmp_path, p_prune=0.5)
