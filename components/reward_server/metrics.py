"""The gateway's metrics, in the format of OpenMetrics, which Prometheus reads. The only prometheus_client.

Mosec has metrics of its own, about batches and its queue; the gateway appends them to these.
"""

from __future__ import annotations

from collections.abc import Container

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.openmetrics.exposition import generate_latest

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_END = "# EOF\n"
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Requests by path and status, seconds of scoring, conversations scored, and requests in progress."""

    def __init__(self) -> None:
        self.under_way = 0
        disable_created_metrics()  # type: ignore[no-untyped-call]
        own = self._registry = CollectorRegistry()
        about = "Requests by path and status."
        self._requests = Counter("oatflow_reward_requests", about, ["path", "status"], registry=own)
        about = "Conversations that were scored."
        self._conversations = Counter("oatflow_reward_conversations", about, registry=own)
        about = "Seconds that the model took for a request."
        self._seconds = Histogram("oatflow_reward_seconds", about, buckets=_BOUNDS, registry=own)
        under_way = Gauge("oatflow_reward_under_way", "Requests that wait or are being scored.", registry=own)
        under_way.set_function(lambda: self.under_way)
        self._ready = Gauge("oatflow_reward_ready", "Whether the model is loaded.", registry=own)

    def count_request(self, known: Container[str], path: str, status: int) -> None:
        """Count a request. All unknown paths are counted as one, as a client can make up any number of them."""
        self._requests.labels(path if path in known else "other", str(status)).inc()

    def count_scored(self, conversations: int, seconds: float) -> None:
        """Count the conversations of one request, and the seconds that the model took to score them."""
        self._conversations.inc(conversations)
        self._seconds.observe(seconds)

    def write_text(self, ready: bool) -> str:
        """Return all metrics as text, without the line that ends a text."""
        self._ready.set(ready)
        text: str = generate_latest(self._registry).decode()  # type: ignore[no-untyped-call]
        return text.removesuffix(_END)
