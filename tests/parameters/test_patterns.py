import pytest

from secateurs.parameters.patterns import excluding, globs, name_matches


def test_a_glob_matches_a_name_and_the_modules_around_it() -> None:
    for pattern in ("a.b.weight", "a.b", "a", "*", "a.*", "*.weight", "a.?"):
        assert name_matches("a.b.weight", pattern)
    for pattern in ("b", "weight", "a.c", "A"):
        assert not name_matches("a.b.weight", pattern)


@pytest.mark.parametrize(
    ("names", "others", "found"),
    [
        (["l.0.up", "l.1.up", "head"], (), {"l.*.up": 2, "head": 1}),
        (["l.0.up"], (), {"l.0.up": 1}),  # one name needs no glob
        (["w_l0", "w_l1"], (), {"w_l*": 2}),
        # A glob that would match others is narrowed, or is not used.
        (["l.0.conv1", "l.1.conv1"], ["l.0.conv2"], {"l.*.conv1": 2}),
        (["l.0.up", "l.1.up"], ["l.2.up"], {"l.0.up": 1, "l.1.up": 1}),
        (["l.0", "l.1"], ["l.2.weight"], {"l.0": 1, "l.1": 1}),
        (["0", "1"], (), {"0": 1, "1": 1}),  # "*" would be everything
        ([], (), {}),
    ],
)
def test_many_names_in_few_globs(
    names: list[str], others: list[str], found: dict[str, int]
) -> None:
    made = globs(names, others)
    assert {glob: len(members) for glob, members in made.items()} == found
    assert [name for members in made.values() for name in members] == names
    assert not any(name_matches(other, glob) for other in others for glob in made)


def test_a_glob_that_another_one_includes_is_left_out() -> None:
    assert str(excluding(["0.bias", "1.bias", "2.out.bias"], ["0.weight"])) == "exclude='*.bias'"
    assert str(excluding(["a", "b"], ())) == "exclude=['a', 'b']"
