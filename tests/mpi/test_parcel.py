"""What goes through shared memory comes out the same, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpclab.mpi.parcel import PAGE, Opened, pack


def sent(value: Any) -> Any:
    parcel = pack(value)
    try:
        return Opened(parcel).value
    finally:
        parcel.close()


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


any_array = arrays.arrays(
    dtype=arrays.scalar_dtypes() | arrays.array_dtypes(max_size=3),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@settings(deadline=None)
@given(st.lists(any_array, max_size=4))
def test_arrays_arrive_as_they_are(given_arrays):
    # numpy's own pickles take dates from big to little endian
    pickled = pickle.loads(pickle.dumps(given_arrays, protocol=5))
    for array, arrived in zip(pickled, sent(given_arrays), strict=True):
        assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
        assert arrived.tobytes() == array.tobytes()


whole = np.arange(60.0).reshape(3, 4, 5)
records = np.array([(1, b"ab", 2.5), (3, b"c", -1.0)], dtype=[("n", "i4"), ("s", "S4"), ("x", "f8")])


@pytest.mark.parametrize(
    "array",
    [
        np.float64(3),
        np.zeros((0, 7)),
        np.array(5),
        whole[:, ::2, 1:],
        whole[::-1],
        whole.T,
        np.asfortranarray(whole),
        np.broadcast_to(np.arange(3), (4, 3)),
        records,
        records["x"],
        np.array([1, "two", None, {"three": 3}], dtype=object),
        np.array(["2026-11-30", "NaT"], dtype="datetime64[ns]"),
        np.array(["ä", "語"]),
    ],
    ids=lambda array: f"{array.dtype.kind}{array.shape}",
)
def test_arrays_of_all_kinds(array):
    arrived = sent(array)
    np.testing.assert_array_equal(arrived, array)
    assert arrived.dtype == array.dtype
    assert arrived.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc


def test_what_is_more_than_an_array_stays_it():
    masked = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    arrived = sent(masked)
    assert isinstance(arrived, np.ma.MaskedArray)
    assert arrived.mask.tolist() == [False, True, False]
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix([[1, 2], [3, 4]])
    assert type(sent(matrix)) is np.matrix


@pytest.mark.parametrize("is_writeable", [True, False])
def test_an_array_arrives_writeable_as_it_was(is_writeable):
    array = np.arange(1000)
    array.flags.writeable = is_writeable
    arrived = sent([array])[0]
    assert arrived.flags.writeable is is_writeable
    if is_writeable:
        arrived[0] = 7
        assert array[0] == 0


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2026-11-30", None])}),
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": pd.Categorical(["x", "y"])}),
        pd.DataFrame({"s": pd.array(["ä", None], dtype="string[pyarrow]"), "o": [[1], {"k": 2}]}),
        pd.DataFrame({"a": []}),
        pd.DataFrame(index=pd.Index(["r", "s"], name="rows")),
        pd.DataFrame(),
        pd.DataFrame(np.arange(6.0).reshape(3, 2))[::2],
    ],
    ids=["mixed", "extension", "arrow", "empty", "index alone", "nothing", "every other row"],
)
def test_dataframes(frame):
    pd.testing.assert_frame_equal(sent(frame), frame)


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), lambda x: st.lists(x) | st.tuples(x)))
def test_other_objects(value):
    assert sent(value) == value


def test_what_only_cloudpickle_can_take_along():
    class OfANotebook:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

    with pytest.raises(AttributeError):
        pickle.dumps(OfANotebook)
    factor = 3
    function, thing = sent((lambda x: factor * x, OfANotebook(np.arange(5))))
    assert function(2) == 6
    assert thing.array.tolist() == [0, 1, 2, 3, 4]


def test_large_ones_are_not_in_the_pickle():
    """They would be copied once more."""
    array = np.arange(10 * PAGE, dtype=np.uint8)
    parcel = pack([array, array[:100].copy()])
    assert parcel.size_bytes < array.nbytes + 2 * PAGE + 1000
    parcel.close()


def handed_back(value: Any, change: Any) -> tuple[Opened, Opened, int]:
    """There and back: what was opened there, what is opened here at last, and how many bytes came back."""
    given = pack(value)
    there = Opened(given)
    back = pack(change(there.value), within=there)
    size = back.size_bytes
    here = Opened(back, given)
    for parcel in (given, back):
        parcel.close()
    return there, here, size


def test_what_is_handed_back_within_the_same_memory_is_not_copied():
    arrays = [np.arange(5 * PAGE, dtype=np.uint8), np.zeros(100), np.ones((0, 3))]
    there, here, size = handed_back(arrays, lambda given: given)
    assert size < PAGE
    for given_array, returned in zip(there.value, here.value, strict=True):
        np.testing.assert_array_equal(returned, given_array)
    there.value[0][7] = 99
    assert here.value[0][7] == 99


def test_so_is_what_was_changed_there():
    def double(given: list[np.ndarray]) -> list[np.ndarray]:
        for array in given:
            array *= 2
        return given

    _, here, size = handed_back([np.arange(5000), np.arange(3)], double)
    assert size < PAGE
    assert here.value[0].tolist() == [2 * n for n in range(5000)]


def test_a_view_of_it_in_another_shape_and_order():
    _, here, size = handed_back(np.arange(10_000).reshape(100, 100), lambda given: given.T)
    assert size < PAGE
    np.testing.assert_array_equal(here.value, np.arange(10_000).reshape(100, 100).T)


def test_a_mixture_of_old_and_new():
    _, here, size = handed_back(np.arange(5000), lambda given: [given[10:], given + 1, "text"])
    old, new, text = here.value
    assert 5000 * 8 <= size < 5000 * 8 + 2 * PAGE
    assert (old.tolist(), new.tolist(), text) == (list(range(10, 5000)), list(range(1, 5001)), "text")


def test_a_little_of_it_does_not_keep_all_of_it():
    there, here, _ = handed_back(np.arange(100_000), lambda given: given[:10])
    assert here.value.tolist() == list(range(10))
    there.value[0] = 99
    assert here.value[0] == 0


def test_nothing_of_it():
    _, here, _ = handed_back(np.arange(10), lambda given: None)
    assert here.value is None


class Stubborn:
    def __reduce__(self) -> Any:
        raise TypeError("not me")


@pytest.mark.parametrize("value", [Stubborn(), [np.arange(5000), Stubborn()], (n for n in range(3))])
def test_what_cannot_be_pickled_says_so_and_leaves_nothing(value):
    before = descriptors()
    with pytest.raises(TypeError):
        pack(value)
    assert descriptors() == before


def test_no_memory_is_taken_where_the_check_refuses():
    asked = []

    def check(needed_bytes: int) -> None:
        asked.append(needed_bytes)
        raise MemoryError

    before = descriptors()
    with pytest.raises(MemoryError):
        pack(np.zeros(1000), check=check)
    assert 8000 < asked[0] < 9000
    assert descriptors() == before


def test_what_is_handed_back_needs_no_room():
    asked: list[int] = []
    given = pack(np.zeros(100_000))
    there = Opened(given)
    back = pack(there.value, within=there, check=asked.append)
    assert asked[0] < 1000
    for parcel in (given, back):
        parcel.close()


def test_when_all_is_forgotten_no_descriptor_is_left():
    before = descriptors()
    for _ in range(5):
        there, here, _ = handed_back([np.arange(5000), "text"], lambda given: given)
        sent(np.zeros(3))
        del there, here
    assert descriptors() == before
