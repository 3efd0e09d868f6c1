"""The keyed queue: once in line, one at a time per key, pauses that grow."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from tonnage.control.queue import MAX_BACKOFF_SECONDS, KeyedQueue

A, B = ("default", "a"), ("default", "b")


async def test_a_key_is_in_line_once() -> None:
    queue = KeyedQueue()
    queue.add(A)
    queue.add(A)
    queue.add(B)
    assert (len(queue), await queue.take(), await queue.take(), len(queue)) == (2, A, B, 0)


async def test_a_key_added_while_it_is_worked_on_comes_again_and_never_in_parallel() -> None:
    queue = KeyedQueue()
    queue.add(A)
    key = await queue.take()
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    queue.done(key)
    assert await queue.take() == A
    queue.done(A)
    assert len(queue) == 0


async def test_the_first_line_is_served_first_and_the_second_is_not_forgotten() -> None:
    queue = KeyedQueue()
    for number in range(20):
        queue.add(("later", str(number)))
    queue.add(("later", "7"), first=True)
    for number in range(20):
        queue.add(("soon", str(number)), first=True)
    assert (len(queue), queue.pressing) == (40, 21)
    taken = [await queue.take() for _ in range(24)]
    assert taken[0] == ("later", "7")
    assert [key for key in taken if key[0] == "later"][1:] == [("later", str(n)) for n in range(3)]
    assert queue.pressing == 0
    assert [await queue.take() for _ in range(16)] == [("later", str(n)) for n in range(3, 20) if n != 7]


async def test_a_key_pressed_while_it_is_worked_on_comes_before_the_others() -> None:
    queue = KeyedQueue()
    queue.add(A)
    key = await queue.take()
    queue.add(B)
    queue.add(A, first=True)
    queue.add(A)
    queue.done(key)
    assert (await queue.take(), await queue.take()) == (A, B)


async def test_the_earlier_timer_stands_and_a_forgotten_key_does_not_come() -> None:
    queue = KeyedQueue()
    queue.add_after(A, seconds=60)
    queue.add_after(A, seconds=0.01)
    queue.add_after(A, seconds=60)
    assert await asyncio.wait_for(queue.take(), timeout=5) == A
    queue.add_after(B, seconds=0.01)
    queue.forget(B)
    await asyncio.sleep(0.05)
    assert len(queue) == 0


async def test_pauses_double_up_to_a_minute_and_start_anew_after_a_success() -> None:
    queue = KeyedQueue()
    loop = asyncio.get_running_loop()

    def pause() -> float:
        queue.add_failed(A)
        timer = queue._timers.pop(A)
        timer.cancel()
        return timer.when() - loop.time()

    pauses = [pause() for _ in range(14)]
    assert 0.1 < pauses[0] < 0.3
    assert all(later > earlier * 1.2 for earlier, later in pairwise(pauses[:8]))
    assert max(pauses) <= MAX_BACKOFF_SECONDS * 1.2
    queue.succeeded(A)
    assert pause() < 0.3
