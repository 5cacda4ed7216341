"""Work done ahead of its use: the next batch while the model is busy, the next clips while one is being
written."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")

_END = object()


def prefetch(items: Iterable[A], ahead: int = 1) -> Generator[A]:
    """The same items, made in a thread that stays up to `ahead` of them in front of the reader.

    An exception in `items` comes out here, in its place. Closing the iterator (or leaving its `for` loop)
    ends the thread.
    """
    ready: queue.Queue[Any] = queue.Queue(maxsize=max(1, ahead))
    closed = threading.Event()

    def put(entry: Any) -> bool:
        while not closed.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not put((item, None)):
                    return
        except BaseException as caught:  # noqa: B036 - handed to the reader, who raises it
            error = caught
        put((_END, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        closed.set()
        thread.join()


def map_ahead(function: Callable[[A], B], items: Iterable[A], threads: int, ahead: int = 4) -> Iterator[B]:
    """`map` in `threads` threads, results in order, with at most `threads * ahead` items under way (so memory
    is bounded).

    Worth it where `function` spends its time outside the interpreter lock, as libsndfile does.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= threads * ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
