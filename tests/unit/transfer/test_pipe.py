"""The pipe: bounded in octets, honest about errors, and never a thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dblens.engines.base import Block
from dblens.transfer.pipe import Pipe


def block(size: int = 10, n: int = 0) -> Block:
    return Block(data=n, size=size, rows=1)


def producers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "dblens-producer"]


def wait_until(what: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    assert callable(what)
    while not what():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    wait_until(lambda: not producers())


def test_every_block_in_order() -> None:
    assert [b.data for b in Pipe(lambda: (block(n=i) for i in range(1000)), limit=25)] == list(range(1000))


def test_nothing_to_produce() -> None:
    assert list(Pipe(list)) == []


def test_the_queue_is_bounded_in_octets() -> None:
    made = 0

    def produce() -> Iterator[Block]:
        nonlocal made
        for i in range(100):
            made += 1
            yield block(10, i)

    pipe = Pipe(produce, limit=35)
    blocks = iter(pipe)
    assert next(blocks).data == 0
    wait_until(lambda: made >= 4)
    time.sleep(0.05)
    assert made <= 5  # three wait in the queue, one is held by the producer, one was taken
    assert sum(1 for _ in blocks) == 99
    assert pipe.peak <= 35


def test_a_block_above_the_limit_passes_alone() -> None:
    pipe = Pipe(lambda: (block(1000, i) for i in range(5)), limit=10)
    assert [b.data for b in pipe] == [0, 1, 2, 3, 4]
    assert pipe.peak == 1000


def test_small_blocks_wait_behind_a_large_one() -> None:
    pipe = Pipe(lambda: [block(30), block(1), block(1)], limit=30)
    assert len(list(pipe)) == 3
    assert pipe.peak <= 30


def test_the_producers_error_is_raised_in_the_consumer() -> None:
    def produce() -> Iterator[Block]:
        yield block(n=1)
        raise ValueError("the source broke")

    taken: list[int] = []
    with pytest.raises(ValueError, match="the source broke"):
        taken.extend(b.data for b in Pipe(produce))
    assert threading.current_thread() not in producers()


def test_an_error_before_the_first_block() -> None:
    def produce() -> Iterator[Block]:
        raise KeyError("no such table")

    with pytest.raises(KeyError):
        list(Pipe(produce))


def test_even_an_interrupt_in_the_producer_arrives() -> None:
    def produce() -> Iterator[Block]:
        yield block()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Pipe(produce))


def test_an_early_close_frees_a_producer_that_waits_for_room() -> None:
    closed_in: list[int] = []

    def produce() -> Iterator[Block]:
        try:
            while True:
                yield block(10)
        finally:
            closed_in.append(threading.get_ident())

    blocks = iter(Pipe(produce, limit=10))
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    assert len(closed_in) == 1
    assert closed_in[0] != threading.get_ident()  # a driver's stream is closed by the thread that reads it


def test_a_consumer_that_fails_frees_the_producer() -> None:
    closed = threading.Event()

    def produce() -> Iterator[Block]:
        try:
            while True:
                yield block(10)
        finally:
            closed.set()

    pipe = Pipe(produce, limit=20)

    def consume() -> None:
        for _ in pipe:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        consume()
    pipe.close()
    assert closed.is_set()


def test_close_before_and_after_is_harmless() -> None:
    pipe = Pipe(lambda: [block()])
    pipe.close()
    done = Pipe(lambda: [block()])
    assert len(list(done)) == 1
    done.close()
    done.close()


def test_producer_and_consumer_overlap() -> None:
    """The producer works ahead while the consumer is busy."""
    ahead = threading.Event()

    def produce() -> Iterator[Block]:
        yield block(n=0)
        yield block(n=1)
        ahead.set()

    for taken in Pipe(produce, limit=100):
        if taken.data == 0:
            assert ahead.wait(5)
