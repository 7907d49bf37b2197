"""The log of the pod of rank 0, passed on line by line while it is written."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from datetime import datetime

from ..errors import ClusterError
from ..progress import is_progress
from .cluster import Cluster
from .failure_messages import LAST_LINES

PAUSE_SECONDS = 1.0
# How long the end of the log may take to arrive, when the job has ended.
LAST_SECONDS = 15.0


class RankZeroLog:
    """Prints each line once, through dropped connections and restarts of the container; keeps the last ones.

    A thread of its own, begun by `follow`. Training is worth more than its log: where the log cannot be had, that is
    said in its place, and nothing stops.

    `is_silent`: the training program has reported no progress yet, as far as the log can be read. What torchrun writes
    while it waits for its peers is no progress.
    """

    def __init__(self, cluster: Cluster, container: str):
        self._cluster, self._container = cluster, container
        self._pod = ""
        self._restarts = self._restarts_read = 0
        self._stamp = ""
        self._at_stamp: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow_log, name="log of rank 0", daemon=True)
        self.last = deque[str](maxlen=LAST_LINES)
        self.is_silent = True

    def follow_pod(self, pod: str, restarts: int) -> None:
        """Read this pod's log from now on; its container has been restarted so many times."""
        if pod != self._pod:
            self._restarts_read = restarts
        self._pod, self._restarts = pod, restarts
        if self._thread.ident is None:
            self._thread.start()

    def finish_reading(self) -> None:
        """Read what is left, for LAST_SECONDS at most."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(LAST_SECONDS)

    def stop_reading(self) -> None:
        """Read no more than what is under way."""
        self._ended.set()

    def _follow_log(self) -> None:
        try:
            while not self._ended.is_set():
                self._read_on(follow="true")
                self._ended.wait(PAUSE_SECONDS)
            self._read_on()
        except ClusterError as error:
            self.is_silent = False
            self._print_line(f"(from here on, the log of {self._pod} cannot be read: {error})")

    def _read_on(self, **options: str) -> None:
        """Read on from the last line read, the end of the container before this one first."""
        options |= {"container": self._container, "timestamps": "true"}
        if self._restarts_read < self._restarts:
            self._restarts_read = self._restarts
            before = {name: value for name, value in options.items() if name != "follow"}
            self._print_new(self._cluster.log(self._pod, previous="true", **before, **self._since_option()))
        self._print_new(self._cluster.log(self._pod, **options, **self._since_option()))

    def _since_option(self) -> dict[str, str]:
        return {"sinceTime": self._stamp} if self._stamp else {}

    def _print_new(self, lines: Iterator[str]) -> None:
        """Print the lines that were not printed before: the server repeats those of a whole second."""
        since, printed = self._stamp, frozenset(self._at_stamp)
        for line in lines:
            stamp, _, text = line.partition(" ")
            if since and (_parse_stamp(stamp) < _parse_stamp(since) or (stamp == since and text in printed)):
                continue
            self._at_stamp = {*self._at_stamp, text} if stamp == self._stamp else {text}
            self._stamp = stamp
            self._print_line(text)

    def _print_line(self, text: str) -> None:
        print(text, flush=True)
        self.last.append(text)
        if self.is_silent and is_progress(text):
            self.is_silent = False


def _parse_stamp(stamp: str) -> tuple[datetime, str]:
    """Order time stamps by all of their digits, of which a datetime keeps six."""
    return datetime.fromisoformat(stamp), stamp.partition(".")[2]
