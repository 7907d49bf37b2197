"""The objects of one namespace, their versions, and what changed since any of those."""

from __future__ import annotations

import copy
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

Match = Callable[[dict], bool]


class Gone(Exception):
    """The version asked for is not remembered any more."""


class Objects:
    def __init__(self):
        self._here: dict[tuple[str, str], dict] = {}
        self._history: list[tuple[int, str, str, dict]] = []
        self._versions = itertools.count(1)
        self._oldest = 0
        self._changed = threading.Condition(threading.RLock())

    def add(self, plural: str, found: dict) -> dict | None:
        """Create an object, unless there is one of its name."""
        with self._changed:
            name = found["metadata"]["name"]
            if (plural, name) in self._here:
                return None
            made = copy.deepcopy(found)
            # Recorded objects bring the time that they were made at.
            made["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1}
            made["metadata"].setdefault("creationTimestamp", now())
            self._keep(plural, "ADDED", made)
            return copy.deepcopy(made)

    def get(self, plural: str, name: str) -> dict | None:
        with self._changed:
            return copy.deepcopy(self._here.get((plural, name)))

    def list(self, plural: str, match: Match = lambda found: True) -> tuple[list[dict], int]:
        with self._changed:
            found = [copy.deepcopy(one) for (kind, _), one in self._here.items() if kind == plural and match(one)]
            return found, self._version

    def update(self, plural: str, name: str, change: Callable[[dict], None]) -> dict | None:
        with self._changed:
            found = self.get(plural, name)
            if found is None:
                return None
            before = copy.deepcopy(found)
            change(found)
            if found != before:
                self._keep(plural, "MODIFIED", found)
            return copy.deepcopy(found)

    def remove(self, plural: str, name: str, uid: str) -> None:
        """Remove an object, unless it is gone, or another one of its name has come."""
        with self._changed:
            found = self._here.get((plural, name))
            if found is not None and found["metadata"]["uid"] == uid:
                self._note(plural, "DELETED", self._here.pop((plural, name)))

    def forget(self) -> None:
        """Remember no version before the next change, as a server does after a while."""
        with self._changed:
            self._oldest = next(self._versions)

    def since(self, plural: str, version: int, match: Match, until: float) -> Iterator[tuple[str, dict]]:
        """Yield changes after a version until a moment; raises `Gone`."""
        while True:
            with self._changed:
                if version < self._oldest:
                    raise Gone
                new = [entry for entry in self._history if entry[0] > version and entry[1] == plural]
                if not new and not self._changed.wait(max(0.0, min(0.2, until - time.monotonic()))):
                    if time.monotonic() >= until:
                        return
                    continue
            for _, _, kind, found in new:
                if match(found):
                    yield kind, found
            version = new[-1][0] if new else version

    @property
    def _version(self) -> int:
        return max(self._oldest, self._history[-1][0] if self._history else 0)

    def _keep(self, plural: str, kind: str, found: dict) -> None:
        self._here[plural, found["metadata"]["name"]] = found
        self._note(plural, kind, found)

    def _note(self, plural: str, kind: str, found: dict) -> None:
        version = next(self._versions)
        found["metadata"]["resourceVersion"] = str(version)
        self._history.append((version, plural, kind, copy.deepcopy(found)))
        self._changed.notify_all()


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
