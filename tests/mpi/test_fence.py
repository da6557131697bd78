"""Ranks meet at the worker of rank 0."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from hpclab.mpi import fence
from hpclab.mpi.fence import arrive_at_fence


@pytest.fixture(autouse=True)
def nobody_waits() -> Iterator[None]:
    yield
    assert fence._rounds == {}


async def arrive(rank: int, number: int = 1, size: int = 3, run: str = "a") -> list[int]:
    return await arrive_at_fence(run=run, number=number, rank=rank, size=size, brought=10 * rank)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_all_get_what_all_have_brought(order):
    async def meet() -> list[list[int]]:
        return await asyncio.gather(*(arrive(rank) for rank in order))

    assert asyncio.run(meet()) == [[0, 10, 20]] * 3


def test_nobody_passes_before_the_last_has_come():
    async def meet() -> None:
        first = [asyncio.ensure_future(arrive(rank)) for rank in range(2)]
        assert not (await asyncio.wait(first, timeout=0.01))[0]
        await arrive(2)
        await asyncio.gather(*first)

    asyncio.run(meet())


def test_rounds_and_runs_do_not_mix():
    async def meet() -> list[list[int]]:
        return await asyncio.gather(
            *(arrive(rank, number, 2, run) for number in (1, 2) for run in "ab" for rank in range(2))
        )

    assert asyncio.run(meet()) == [[0, 10]] * 8


def test_when_rank_0_ends_nobody_waits_for_ever():
    async def meet() -> None:
        waits = asyncio.ensure_future(arrive(1, run="over"))
        await asyncio.sleep(0)
        fence._end("over")
        with pytest.raises(ConnectionError, match="rank 0 has ended"):
            await waits
        with pytest.raises(ConnectionError, match="rank 0 has ended"):
            await arrive(2, run="over")

    asyncio.run(meet())
