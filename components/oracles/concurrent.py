"""Several questions at a time; a failure loses no answer that was given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from ..errors import OracleError
from .oracle import Answer, OracleFailed, SpendingLimit

Q = TypeVar("Q")


def ask_all(questions: Sequence[Q], ask: Callable[[Q], dict[str, Answer]], workers: int) -> dict[str, Answer]:
    """Ask all questions, `workers` at a time; each returns answers by duel id.

    If one raises an `OracleError`, no new ones are begun, those in flight are awaited, and it is raised again as the
    `OracleFailed` that it is, or as one, with all answers so far. Any other exception is raised as it is.
    """
    asking = _Asking(questions, ask)
    # Daemons: an interrupt must end the process, and not wait for a service that may be down for an hour.
    threads = [threading.Thread(target=asking.work, daemon=True) for _ in range(min(workers, len(questions)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        asking.stop.set()
    return asking.answers_or_failure()


class _Asking(Generic[Q]):
    """Questions on their way, and what came back."""

    def __init__(self, questions: Sequence[Q], ask: Callable[[Q], dict[str, Answer]]):
        self.stop = threading.Event()
        self._ask = ask
        self._left: SimpleQueue[Q] = SimpleQueue()
        for question in questions:
            self._left.put(question)
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._failures: list[BaseException] = []

    def work(self) -> None:
        """Ask what nobody has asked yet, until nothing is left or something failed."""
        while not self.stop.is_set():
            try:
                question = self._left.get_nowait()
            except Empty:
                return
            self._ask_one(question)

    def answers_or_failure(self) -> dict[str, Answer]:
        """Return all answers, or raise the first failure with what was answered."""
        if not self._failures:
            return self._answers
        # A mistake in the program is told first, and an outage before a limit.
        mistakes = [one for one in self._failures if not isinstance(one, OracleError)]
        outages = [one for one in self._failures if not isinstance(one, SpendingLimit)]
        failure = (mistakes or outages or self._failures)[0]
        if isinstance(failure, OracleFailed):
            failure.answers = self._answers
            raise failure
        if isinstance(failure, OracleError):
            raise OracleFailed(str(failure), self._answers) from failure
        raise failure

    def _ask_one(self, question: Q) -> None:
        answers: dict[str, Answer] = {}
        try:
            answers = self._ask(question)
        except BaseException as error:
            self.stop.set()
            answers = error.answers if isinstance(error, OracleFailed) else {}
            with self._lock:
                self._failures.append(error)
        with self._lock:
            self._answers.update(answers)
