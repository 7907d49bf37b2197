"""What the gateway counts, in the format of OpenMetrics, which Prometheus reads. Pure.

Mosec has metrics of its own, about batches and its queue; the gateway writes them behind these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable
from itertools import accumulate

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Requests by path and status, how long the model took for how many conversations, and requests under way."""

    def __init__(self) -> None:
        self.under_way = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._conversations = 0
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def note(self, known: Container[str], path: str, status: int) -> None:
        """Count a request; paths that are not known are one, as anybody can make up any number of them."""
        self._requests[path if path in known else "other", status] += 1

    def note_scored(self, conversations: int, seconds: float) -> None:
        """Count what the model scored for one request."""
        self._conversations += conversations
        self._seconds += seconds
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1

    def text(self, ready: bool) -> str:
        """Write it all, but for the line that ends a text."""
        requests = [
            (f'_total{{path="{path}",status="{status}"}}', count)
            for (path, status), count in sorted(self._requests.items())
        ]
        return "".join(
            (
                _family("requests", "counter", "Requests by path and status.", requests),
                _family(
                    "conversations", "counter", "Conversations that were scored.", [("_total", self._conversations)]
                ),
                _family("seconds", "histogram", "Seconds that the model took for a request.", self._histogram()),
                _family("under_way", "gauge", "Requests that wait or are being scored.", [("", self.under_way)]),
                _family("ready", "gauge", "Whether the model is loaded.", [("", int(ready))]),
            )
        )

    def _histogram(self) -> Iterable[tuple[str, float]]:
        bounds = [*map(str, _BOUNDS), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._buckets), strict=True):
            yield f'_bucket{{le="{bound}"}}', count
        yield "_sum", self._seconds
        yield "_count", sum(self._buckets)


def _family(name: str, kind: str, about: str, samples: Iterable[tuple[str, float]]) -> str:
    full = f"oatflow_reward_{name}"
    lines = [f"# HELP {full} {about}", f"# TYPE {full} {kind}", *(f"{full}{end} {value}" for end, value in samples)]
    return "\n".join(lines) + "\n"
