"""Settings of the reward model's server: where it listens, what it takes together, and what it refuses."""

from __future__ import annotations

from pydantic import Field

from ..settings import Section


class ServerSettings(Section):
    """How a reward model is served; which one is in the section `scorer`."""

    host: str = "0.0.0.0"
    """Address to listen on; 127.0.0.1: this machine alone."""
    port: int = Field(8100, ge=0, le=65535)
    """Port to listen on; 0: a free one, which the line on readiness names."""
    max_batch: int = Field(32, ge=1)
    """Requests that the model scores together at most."""
    max_wait: int = Field(10, ge=1)
    """Milliseconds that a request waits for others to be scored with."""
    max_body: int = Field(1048576, ge=1024)
    """Largest request in bytes; a larger one is refused with 413."""
    max_duels: int = Field(64, ge=1)
    """Most duels, or responses, in one request; more are refused with 422."""
    max_waiting: int = Field(256, ge=1)
    """Most requests that are under way; one more is refused with 429."""
    timeout: float = Field(30.0, gt=0)
    """Seconds that a request may wait and be scored."""
