"""Where a rank's chunks lie in their collection."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpclab.mpi.chunks import Chunks, Layout

sizes = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@given(st.lists(sizes, min_size=1, max_size=3))
def test_the_slices_cut_the_whole_array_into_its_chunks(chunks):
    layout = Layout.of(chunks)
    whole = np.arange(math.prod(layout.shape)).reshape(layout.shape)
    seen = np.zeros(layout.shape, int)
    for index in np.ndindex(*layout.numblocks):
        piece = whole[layout.slices(index)]
        assert piece.shape == tuple(along[number] for along, number in zip(chunks, index, strict=True))
        seen[layout.slices(index)] += 1
    assert (seen == 1).all()


def test_sizes_that_dask_does_not_know_are_none_and_so_is_what_comes_behind_them():
    layout = Layout.of([(3, math.nan, 2), (4,)])
    assert layout.shape == (None, 4)
    assert layout.numblocks == (3, 1)
    assert layout.slices((0, 0)) == (slice(0, 3), slice(0, 4))
    assert layout.slices((1, 0)) == (slice(3, None), slice(0, 4))
    assert layout.slices((2, 0)) == (slice(None, None), slice(0, 4))


def test_an_array_without_axes_has_one_chunk():
    layout = Layout.of(())
    assert (layout.shape, layout.numblocks, layout.slices(())) == ((), (), ())


def test_chunks_are_a_list_that_knows_where_each_belongs():
    chunks = Chunks(["a", "b"], [(0, 1), (1, 0)], Layout.of([(2, 3), (4, 5)]))
    assert chunks == ["a", "b"]
    assert chunks.indices == ((0, 1), (1, 0))
    assert (chunks.shape, chunks.numblocks) == ((5, 9), (2, 2))
    assert chunks.slices == ((slice(0, 2), slice(4, 9)), (slice(2, 5), slice(0, 4)))


@pytest.mark.parametrize("items", [[], [1, 2]])
def test_chunks_can_be_returned(items):
    layout = Layout.of([(math.nan,) * len(items)])
    chunks = Chunks(items, [(k,) for k in range(len(items))], layout)
    again = pickle.loads(pickle.dumps(chunks))
    assert (again, again.indices, again.slices) == (chunks, chunks.indices, chunks.slices)
