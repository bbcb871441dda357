import pytest

from result_rows import make_row
from secateurs.report.series import describe, split_series


def test_series_are_named_by_what_differs_and_nothing_else() -> None:
    rows = [
        make_row(0.5, granularity=granularity, scope=scope)
        for granularity in ("weight", "kernel")
        for scope in ("global", "layer")
    ]
    assert [series.label for series in split_series(rows)] == [
        "weight, global",
        "weight, layer",
        "kernel, global",
        "kernel, layer",
    ]


def test_what_follows_from_the_model_is_not_named() -> None:
    rows = [
        make_row(0.5, model="torchvision:resnet18", weights_sha256="aa"),
        make_row(0.5, model="timm:lite0", weights_sha256="bb", weights="pretrained", img_size=260),
    ]
    assert [series.label for series in split_series(rows)] == ["resnet18", "lite0"]


def test_one_name_from_two_places_is_written_in_full() -> None:
    rows = [make_row(0.5, model="torchvision:resnet18"), make_row(0.5, model="timm:resnet18")]
    assert [series.label for series in split_series(rows)] == [
        "torchvision:resnet18",
        "timm:resnet18",
    ]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{"p_bern": 0.5}, {"p_bern": 1.0}], ["p_bern 0.5", "p_bern 1"]),
        ([{"prune_type": "global"}, {"prune_type": "gradient"}], None),
        ([{"score": "magnitude"}, {"score": "taylor"}], ["magnitude", "taylor"]),
        ([{"layers": ""}, {"layers": "conv2d"}], ["default layers", "conv2d"]),
        ([{"seed": 1}, {"seed": 2}], ["seed 1", "seed 2"]),
        ([{"weights_sha256": "a" * 16}, {"weights_sha256": "b" * 16}], None),
        ([{}], ["resnet18"]),
    ],
)
def test_whatever_differs_makes_a_series(
    changes: list[dict[str, object]], labels: list[str] | None
) -> None:
    found = [series.label for series in split_series([make_row(0.5, **c) for c in changes])]
    assert len(set(found)) == len(changes)
    assert labels is None or found == labels


def test_every_series_starts_at_its_own_models_dense_row() -> None:
    dense = [make_row(0.0, 80.0, model="a"), make_row(0.0, 70.0, model="b")]
    pruned = [
        make_row(ratio, 50.0, model=model, granularity="kernel", p_bern=0.5)
        for model in "ab"
        for ratio in (0.3, 0.1)
    ]
    first, second = split_series(pruned + dense)
    assert [row.p_prune for row in first.rows] == [0.0, 0.1, 0.3]
    assert first.dense == first.rows[0] == dense[0]
    assert second.dense == second.rows[0] == dense[1]


def test_dense_rows_alone_are_series_too() -> None:
    (series,) = split_series([make_row(0.0, 80.0)])
    assert series.rows == (series.dense,)


def test_without_a_dense_row_nothing_is_invented() -> None:
    (series,) = split_series([make_row(0.5)])
    assert series.dense is None and len(series.rows) == 1


def test_the_later_of_two_equal_ratios_counts() -> None:
    (series,) = split_series([make_row(0.5, 10.0), make_row(0.5, 20.0)])
    assert [row.top1 for row in series.rows] == [20.0]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([{}], "300 images of imagenet (val); weights ranked globally by magnitude"),
        (
            [{"granularity": "weight"}, {"granularity": "kernel"}],
            "300 images of imagenet (val); ranked globally by magnitude",
        ),
        (
            [{"p_bern": 0.5, "draws": 4, "layers": "conv2d;linear", "scope": "layer", "split": ""}],
            "300 images of imagenet; weights ranked per layer by magnitude; in conv2d, linear;"
            " p_bern 0.5, 4 draws",
        ),
        (
            [{"prune_type": "gradient", "count": 50_000}],
            "50,000 images of imagenet (val); weights ranked globally by magnitude;"
            " gradient pruning",
        ),
    ],
)
def test_description_says_what_all_rows_share(changes: list[dict[str, object]], line: str) -> None:
    assert describe([make_row(0.0), *(make_row(0.5, **change) for change in changes)]) == line
