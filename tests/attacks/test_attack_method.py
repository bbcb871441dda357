import dataclasses
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.attacks import LOSSES, Method, parse_method
from secateurs.errors import InvalidArgumentError

methods = st.builds(
    Method,
    loss=st.sampled_from(sorted(LOSSES)),
    momentum=st.sampled_from([0.5, 0.9, 1.0, 2.0, 1e-7]),
    nesterov=st.booleans(),
    ti=st.sampled_from([0, 3, 5, 15]),
    di=st.sampled_from([None, "di", "rdi"]),
    si=st.integers(1, 6),
    admix=st.integers(0, 4),
)


@given(methods)
def test_a_methods_name_is_read_as_that_method(method: Method) -> None:
    assert parse_method(str(method)) == method
    plain = dataclasses.replace(method, momentum=0.0, nesterov=False)
    assert parse_method(str(plain)) == plain


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("logit", Method(loss="logit")),
        ("mi-ti-di-logit", Method(momentum=1.0, ti=5, di="di", loss="logit")),
        ("ni-rdi-ce", Method(momentum=1.0, nesterov=True, di="rdi", loss="ce")),
        ("si-admix-margin", Method(si=5, admix=3, loss="margin")),
        ("mi0.9-ti15-ce", Method(momentum=0.9, ti=15, loss="ce")),
    ],
)
def test_names(name: str, method: Method) -> None:
    assert parse_method(name) == method
    assert str(method) == name


def test_any_order_and_case() -> None:
    found = {parse_method("-".join(parts)) for parts in permutations(["mi", "ti", "DI", "Logit"])}
    assert found == {parse_method("mi-ti-di-logit")}
    assert parse_method("mi-ni-ce") == parse_method("ni-ce") == parse_method("ce-ni-mi1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mi-ti-di", "names no loss: add one of ce, logit, margin, such as mi-ti-di-logit"),
        ("mi-logits", "unknown component 'logits' in method 'mi-logits'; did you mean logit"),
        ("vmi-ce", "did you mean mi"),
        ("mi-ce-logit", "sets loss twice"),
        ("di-rdi-ce", "sets di twice, the second as 'rdi'"),
        ("mi-mi-ce", "sets momentum twice"),
        ("", "unknown component ''"),
        ("mi--ce", "unknown component ''"),
        ("mi.-ce", r"unknown component 'mi\.'"),
        ("di2-ce", "unknown component 'di2'"),
        ("ti4-ce", "an odd number such as 5, or 0 for none; got 4"),
        ("ti1-ce", "an odd number such as 5"),
        ("si0-ce", "si must be a whole number from 1, got 0"),
        ("si2.5-ce", r"si must be a whole number from 1, got 2\.5"),
        ("mi0-ni-ce", r"momentum, which is 0: write momentum=1\.0"),
        (None, "names joined by '-', such as mi-ti-di-logit; got None"),
    ],
)
def test_wrong_names_say_what_to_write(name: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        parse_method(name)


def test_numbers_of_numpy_are_numbers() -> None:
    method = Method(momentum=np.int64(1), ti=np.uint8(5), si=np.int32(2), admix=np.int16(3))  # type: ignore[arg-type]
    assert method == Method(momentum=1.0, ti=5, si=2, admix=3)
    assert repr(method) == repr(Method(momentum=1.0, ti=5, si=2, admix=3))
    assert Method(momentum=np.float32(0.5)).momentum == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "logits"}, "loss must be one of ce, logit, margin; got 'logits'"),
        ({"di": "dii"}, "di must be one of di, rdi"),
        ({"momentum": -1}, "momentum must be a number such as"),
        ({"momentum": float("nan")}, "momentum must be a number such as"),
        ({"momentum": True}, "momentum must be a number such as"),
        ({"nesterov": True}, "write momentum=1.0"),
        ({"ti": True}, "ti must be a whole number"),
        ({"admix": -1}, "admix must be a whole number from 0"),
        ({"si": "5"}, "si must be a whole number from 1, got '5'"),
    ],
)
def test_wrong_values_say_what_to_write(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Method(**values)  # type: ignore[arg-type]
