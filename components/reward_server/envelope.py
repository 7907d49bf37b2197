"""The messages between the gateway and the model's process, on this machine alone."""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel

from ..oracles.settings import ScorerSettings

ROUTE = "/scores"
_SERVED = "OATFLOW_SERVED_MODEL"
# A prompt goes in twice, once with each response; a character that must be escaped takes six.
LARGEST_GROWTH = 12

Conversation = tuple[str, str]


class Served(BaseModel):
    """The settings of the model's process. `key` guards its port, which other users of this machine can reach, too."""

    scorer: ScorerSettings
    max_batch: int
    max_wait: int
    timeout: float
    key: str
    parent: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read what `to_environment` wrote."""
        return cls.model_validate_json(os.environ[_SERVED])

    def to_environment(self) -> Mapping[str, str]:
        """Write it where the children of a child still find it."""
        return {_SERVED: self.model_dump_json()}


@dataclass(frozen=True, slots=True)
class Scores:
    """An answer: which model it is, and its score of each conversation."""

    identity: str
    scores: list[float]


def pack_conversations(conversations: Sequence[Conversation], key: str) -> bytes:
    """Write a request."""
    return json.dumps([key, conversations], ensure_ascii=False).encode()


def unpack_conversations(data: bytes, key: str) -> list[Conversation]:
    """Read a request; without the key it has no conversations. Raising would fail the whole batch."""
    try:
        given, conversations = json.loads(data)
        known = hmac.compare_digest(str(given).encode(), key.encode())
        return [(prompt, response) for prompt, response in conversations] if known else []
    except (ValueError, TypeError, RecursionError):
        return []  # The gateway never writes this.


def pack_scores(scores: Scores) -> bytes:
    """Write an answer."""
    return json.dumps([scores.identity, scores.scores]).encode()


def unpack_scores(data: bytes) -> Scores:
    """Read an answer."""
    return Scores(*json.loads(data))
