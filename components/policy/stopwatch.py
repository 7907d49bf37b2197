"""Where the seconds of a step go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up seconds by part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def time_part(self, part: str) -> Iterator[None]:
        """Add the seconds that the body takes to a part."""
        before = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - before
