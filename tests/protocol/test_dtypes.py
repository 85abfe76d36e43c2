"""Dtypes that travel, by name and by their parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.protocol.dtypes import parse_dtype, plain_dtype
from pilotage.protocol.errors import ArrayRefused, MalformedArray

NAMES = [
    "bool",
    "int8",
    "uint16",
    "int32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "<U5",
    "|S3",
    ">f8",
    ">i2",
    ">U2",
]
TIMES = [
    "datetime64",
    "datetime64[ns]",
    "datetime64[25s]",
    "timedelta64[us]",
    "timedelta64",
    ">M8[D]",
    ">m8[ms]",
]


@pytest.mark.parametrize("name", NAMES + TIMES)
def test_a_name_is_read_as_numpy_writes_it(name: str) -> None:
    assert str(parse_dtype(name)) == name


@given(
    st.text(max_size=20)
    | st.from_regex(r"[<>|=]?[a-zA-Z?]{1,9}[0-9]{0,12}(\[[0-9a-z]{1,12}\])?", fullmatch=True)
)
def test_any_name_gives_a_travelling_dtype_or_the_one_error(name: str) -> None:
    try:
        dtype = parse_dtype(name)
    except MalformedArray:
        return
    assert plain_dtype(dtype) == dtype


def test_metadata_stays_at_home() -> None:
    inner = np.dtype("f8", metadata={"unit": "mV"})
    whole = plain_dtype(np.dtype([("a", inner), ("b", inner, (2,))]))
    assert whole == np.dtype([("a", "f8"), ("b", "f8", (2,))])
    assert whole["a"].metadata is None


def test_an_object_field_is_refused_with_advice() -> None:
    with pytest.raises(ArrayRefused, match=r"object.*astype"):
        plain_dtype(np.dtype(object))
