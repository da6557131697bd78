"""Objects in memory that a worker and the rank beside it share: copied once, under no name, in no file.

An anonymous file (memfd) holds the buffers of an object's arrays, each where a page begins, and its pickle behind them.
It goes over a unix socket as a descriptor. Its memory is free again when the last who has it is gone, whatever ended
them.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAGE = 4096
SMALL_BYTES = 2**20
MOST_AT_ONCE = 2**30


@dataclass(frozen=True)
class Parcel:
    """A descriptor of shared memory, and where in it what is. Whoever gets one closes it."""

    fd: int
    label: str

    @property
    def size_bytes(self) -> int:
        return os.fstat(self.fd).st_size

    def close(self) -> None:
        os.close(self.fd)


class Opened:
    """What a parcel had in it; a result may be handed back within the same memory."""

    def __init__(self, parcel: Parcel, within: Parcel | None = None) -> None:
        """`within`: the parcel that the sender had got, in whose memory parts of this one may lie."""
        label = json.loads(parcel.label)
        given = memoryview(_mapped(within)) if within and any(place[0] for place in label["places"]) else None
        # a mapping holds a descriptor as long as its value lives, and many small results may
        is_small = within is not None and parcel.size_bytes <= SMALL_BYTES
        self.memory = bytearray(os.pread(parcel.fd, SMALL_BYTES, 0)) if is_small else _mapped(parcel)
        whole = memoryview(self.memory)
        buffers = [
            (given if is_given and given is not None else whole)[begin : begin + size]
            for is_given, begin, size in label["places"]
        ]
        begin, size = label["body"]
        self.value: Any = pickle.loads(whole[begin : begin + size], buffers=buffers)


def pack(
    value: Any, *, within: Opened | None = None, check: Callable[[int], None] = lambda needed_bytes: None
) -> Parcel:
    """Copy an object into shared memory; arrays that lie `within` what was opened stay where they are.

    `check` is asked before memory is taken, and may raise. Raises also what pickle raises.
    """
    buffers: list[pickle.PickleBuffer] = []
    body = _pickled(value, buffers.append)
    views = [buffer.raw() for buffer in buffers]
    places = _places_within(views, within) if within else [None] * len(views)
    check(len(body) + sum(view.nbytes for view, place in zip(views, places, strict=True) if place is None))
    fd = os.memfd_create("hpclab", os.MFD_CLOEXEC)
    try:
        end, told = 0, []
        for view, place in zip(views, places, strict=True):
            if place is not None:
                told.append([1, place, view.nbytes])
                continue
            told.append([0, end, view.nbytes])
            end = -(-_write(fd, view, end) // PAGE) * PAGE
        _write(fd, memoryview(body), end)
        return Parcel(fd, json.dumps({"body": [end, len(body)], "places": told}))
    except BaseException:
        os.close(fd)
        raise


def _pickled(value: Any, callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    buffers: list[pickle.PickleBuffer] = []
    try:
        body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception:  # classes and functions of a notebook, which only cloudpickle knows how to take along
        import cloudpickle

        buffers.clear()
        body = bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append))
    for buffer in buffers:
        callback(buffer)
    return body


def _write(fd: int, view: memoryview, begin: int) -> int:
    """Written, not copied by way of a mapping: the kernel then need not clear each page first. Where it ends."""
    done = 0
    while done < view.nbytes:
        done += os.pwrite(fd, view[done : done + MOST_AT_ONCE], begin + done)
    return begin + done


def _mapped(parcel: Parcel) -> mmap.mmap:
    return mmap.mmap(parcel.fd, parcel.size_bytes)


def _places_within(views: list[memoryview], opened: Opened) -> list[int | None]:
    """Where in opened memory each buffer lies; None: elsewhere, or most of that memory would be kept for nothing."""
    begin, size = _address(memoryview(opened.memory)), len(opened.memory)
    offsets = [_address(view) - begin if view.nbytes else -1 for view in views]
    places = [offset if 0 <= offset < size else None for offset in offsets]
    kept = sum(view.nbytes for view, place in zip(views, places, strict=True) if place is not None)
    return places if 2 * kept >= size else [None] * len(views)


def _address(view: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])
