"""Work spread over processes, with the same numbers as in one.

Sums of floats depend on how many threads share them, so that every process, this one included, computes on one thread.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_tasks(work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Yield the result of every task in their order; `jobs`: processes."""
    if min(jobs, len(tasks)) <= 1:
        with _one_thread():
            yield from map(work, tasks)
        return
    # A forked child would inherit torch's threads half alive.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), spawn, torch.set_num_threads, (1,))
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
