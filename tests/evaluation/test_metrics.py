from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from small_nets import Images, loader, network
from torch import nn

from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import Tally, accuracy, logits_of
from secateurs.evaluation.metrics import classes_of

NAN, INF = float("nan"), float("inf")


def tally_of(logits: list[list[float]], labels: list[int], dtype: torch.dtype) -> Tally:
    tally = Tally()
    tally.add(torch.tensor(logits, dtype=dtype), torch.tensor(labels))
    return tally


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_counts_first_and_first_five(dtype: torch.dtype) -> None:
    scores = [[7.0, 6, 5, 4, 3, 2, 1]] * 4
    tally = tally_of(scores, [0, 1, 4, 5], dtype)
    assert (tally.count, tally.correct1, tally.correct5) == (4, 1, 3)
    expected = F.cross_entropy(torch.tensor(scores), torch.tensor([0, 1, 4, 5])).item()
    assert tally.loss == pytest.approx(expected, rel=1e-6)
    assert (tally.top1, tally.top5) == (25.0, 75.0)


def test_batches_add_up_to_the_whole() -> None:
    logits, labels = torch.randn(50, 9), torch.randint(9, (50,))
    whole, parts = Tally(), Tally()
    whole.add(logits, labels)
    for rows, row_labels in zip(logits.split(7), labels.split(7), strict=True):
        parts.add(rows, row_labels)
    assert (parts.count, parts.correct1, parts.correct5) == (50, whole.correct1, whole.correct5)
    assert whole.correct1 == int((logits.argmax(1) == labels).sum())
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_with_few_classes_every_label_is_among_five() -> None:
    tally = tally_of([[0.0, 1.0, 2.0]] * 3, [0, 1, 2], torch.float32)
    assert (tally.correct1, tally.correct5) == (1, 3)


def test_doubles_are_compared_as_doubles() -> None:
    # Rounded to float32 the two scores are equal, and whichever comes first would win.
    near = 1.0 + 1e-12
    assert tally_of([[1.0, near], [near, 1.0]], [1, 0], torch.float64).correct1 == 2
    assert tally_of([[1.0, near], [near, 1.0]], [0, 1], torch.float64).correct1 == 0


@pytest.mark.parametrize("scores", [[NAN, NAN, NAN], [NAN, 1.0, 2.0], [NAN, -INF, -INF]])
def test_a_label_with_a_nan_score_is_wrong(scores: list[float]) -> None:
    tally = tally_of([scores], [0], torch.float32)
    assert (tally.count, tally.correct1, tally.correct5) == (1, 0, 0)


def test_a_broken_network_is_never_right_by_its_nans() -> None:
    labels = list(range(6))
    tally = tally_of([[NAN] * 6] * 6, labels, torch.float32)
    assert (tally.correct1, tally.correct5) == (0, 0)
    assert tally.loss != tally.loss


def test_an_empty_tally_has_no_accuracy_and_no_zero_division() -> None:
    assert (Tally().top1, Tally().top5, Tally().loss) == (0.0, 0.0, 0.0)


def test_a_network_agrees_with_itself_where_several_classes_have_the_highest_logit() -> None:
    logits = torch.randn(200, 100, generator=torch.Generator().manual_seed(0)).mul(2).round()
    tally = Tally()
    tally.add(logits, classes_of(logits), logits)
    assert (tally.correct1, tally.agreed) == (200, 200)


def test_comes_back_from_a_dict() -> None:
    tally = tally_of([[1.0, 2.0]], [1], torch.float32)
    assert Tally.from_dict(tally.to_dict()) == tally


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 9], r"labels run from 0 to 9, but the model knows classes 0 to 6"),
        ([-1, 3], r"-1 marks an unreadable image: see secateurs.zoo.drop_skipped"),
        ([0, 1, 2], r"2 rows of logits for 3 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Tally().add(torch.zeros(2, 7), torch.tensor(labels))


def test_scores_are_found_in_what_models_return() -> None:
    scores = torch.zeros(2, 3)
    for output in (scores, SimpleNamespace(logits=scores), (scores, "aux"), [scores]):
        assert logits_of(output) is scores


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (torch.zeros(2, 3, 1, 1), r"\(2, 3, 1, 1\)"),
        (torch.zeros(2), r"\(2,\)"),
        ({"scores": 1}, "dict"),
        ((), "tuple"),
    ],
)
def test_other_outputs_are_refused_with_what_to_do(output: object, got: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"\(batch, classes\), got {got}: wrap it"):
        logits_of(output)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_accuracy_is_that_of_a_plain_loop(dtype: torch.dtype) -> None:
    images, model = Images(), network().eval().to(dtype)
    correct, loss = 0, 0.0
    with torch.no_grad():
        for pixels, labels in loader(images, batch_size=7):
            logits = model(pixels.to(dtype))
            correct += int((logits.topk(5).indices[:, 0] == labels).sum())
            loss += F.cross_entropy(logits.double(), labels, reduction="sum").item()
    found = accuracy(model, loader(images, batch_size=7))
    assert (found.count, found.correct1) == (len(images), correct)
    assert found.loss == pytest.approx(loss / len(images), rel=1e-6)


def test_accuracy_takes_the_model_as_it_is() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(1.0), nn.Linear(64, 7))
    nn.init.zeros_(model[2].bias)
    assert accuracy(model.train(), loader()).loss != accuracy(model.eval(), loader()).loss


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_may_be_any_whole_numbers(dtype: torch.dtype) -> None:
    images, model = Images(), network().eval()
    batches = [(images.pixels, images.labels.to(dtype))]
    assert accuracy(model, batches) == accuracy(model, [(images.pixels, images.labels)])
    as_list = [(images.pixels, images.labels.tolist())]
    assert accuracy(model, as_list) == accuracy(model, [(images.pixels, images.labels)])


def test_whole_numbers_reach_a_model_that_wants_them() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3))
    batch = (torch.randint(10, (5, 3)), torch.zeros(5, dtype=torch.int64))
    assert accuracy(model, [batch]).count == 5


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"pixel_values": 1, "labels": 2}, "got dict"),
        ((torch.zeros(2, 1), torch.zeros(2), "paths"), "got tuple .*Tensor.*str"),
        (([1, 2], torch.zeros(2)), "got tuple .*list.*Tensor"),
        (torch.zeros(2, 3), "got Tensor"),
        ((torch.zeros(1, 8, 8), 3), r"one image with its label: write DataLoader\(data, batch"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2, 7)), "one-hot"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2, 7, dtype=torch.int64)), "one-hot"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2)), "one whole number an image, got torch.float32"),
    ],
)
def test_other_batches_are_refused_with_what_to_write(batch: object, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        accuracy(network(), [batch])
