"""What has passed is not said twice, wherever it was cut."""

from __future__ import annotations

import io

import pytest

from hpclab.resumed import Resumed

TEXT = b"one\ntwo\nthree\n"


@pytest.mark.parametrize("cut", range(len(TEXT) + 1))
@pytest.mark.parametrize("piece", [1, 3, len(TEXT)])
def test_it_goes_on_where_it_stopped(cut: int, piece: int) -> None:
    sink = io.BytesIO()
    resumed = Resumed(sink)
    for said in (TEXT[:cut], TEXT[: cut // 2], TEXT):  # the second time it does not come so far again
        resumed.begin_again()
        for begin in range(0, len(said), piece):
            resumed.write(said[begin : begin + piece])
    assert sink.getvalue() == TEXT
