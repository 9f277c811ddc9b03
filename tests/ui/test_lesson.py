"""A matrix in a URL: there and back, and nothing else gets in."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pgb_core.lesson import SIZE
from ui.lesson import decode, encode

TENTHS = arrays(np.int64, (SIZE, SIZE), elements=st.integers(-99, 99))


@given(TENTHS)
def test_a_matrix_survives_the_url(tenths: np.ndarray) -> None:
    code = encode(tenths / 10)
    assert re.fullmatch(r"[A-Za-z0-9_-]{192}", code)
    found = decode(code)
    assert found is not None
    np.testing.assert_array_equal(found, tenths / 10)


@given(st.one_of(st.text(max_size=300), st.text("ABCxyz019-_", min_size=190, max_size=194)))
def test_whatever_comes_from_a_url_is_a_matrix_within_bounds_or_nothing(code: str) -> None:
    found = decode(code)
    if found is not None:
        assert found.shape == (SIZE, SIZE)
        assert np.abs(found).max() <= 9.9
        assert encode(found) == code


@pytest.mark.parametrize(
    "code",
    [
        "",
        "A" * 191,
        "A" * 196,
        "=" * 192,
        "é" * 192,
        "A" * 191 + "\n",
        base64.urlsafe_b64encode(bytes([100]) * 144).decode(),
        base64.urlsafe_b64encode(bytes([128]) * 144).decode(),
    ],
)
def test_codes_that_are_none(code: str) -> None:
    assert decode(code) is None
