"""The model behind the gateway: Mosec batches the requests of many clients. The only module that imports mosec.

`MosecProcess` runs this as a program, with its settings in the environment: Mosec starts the worker as a process that
inherits nothing else. `envelope` has the format of requests and answers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from math import nan

from mosec import Server, Worker

from ..errors import OatflowError, OracleError
from ..jobs.orphans import die_with_parent
from ..oracles.scorer_network import open_scorer
from .envelope import ROUTE, Conversation, Scores, Served, pack_scores, unpack_conversations


class ScoreWorker(Worker):
    """The process that holds the model."""

    def __init__(self) -> None:
        die_with_parent(os.getppid())
        served = Served.from_environment()
        self._key = served.key
        try:
            self._scorer = open_scorer(served.scorer)
            # The first pass is slow, so it is not left to a request.
            self._scorer.score_texts([("Hello", "Hello!")])
        except OatflowError as error:
            print(f"oatflow: {error}", file=sys.stderr, flush=True)
            sys.exit(error.exit_code)

    def deserialize(self, data: bytes) -> list[Conversation]:
        """Read a request."""
        return unpack_conversations(data, self._key)

    def forward(self, data: Sequence[Sequence[Conversation]]) -> list[Scores]:
        """Score the conversations of several requests at once; where that fails, each request by itself."""
        try:
            scores = iter(self._scorer.score_texts([conversation for request in data for conversation in request]))
        except OracleError:
            return [Scores(self._scorer.identity, self._score_alone(request)) for request in data]
        return [Scores(self._scorer.identity, [next(scores) for _ in request]) for request in data]

    def _score_alone(self, request: Sequence[Conversation]) -> list[float]:
        """Score one request alone; where that fails, its scores are NaN, and the gateway refuses it."""
        try:
            return self._scorer.score_texts(request)
        except OracleError as error:
            print(f"oatflow: {error}", file=sys.stderr, flush=True)
            return [nan] * len(request)

    def serialize(self, data: Scores) -> bytes:
        """Write an answer."""
        return pack_scores(data)


def main() -> None:
    """Serve until terminated, or until the parent process ends."""
    served = Served.from_environment()
    die_with_parent(served.parent, signal.SIGTERM)
    server = Server()  # type: ignore[no-untyped-call]
    # With a batch of 1, Mosec would hand requests over bare.
    server.append_worker(
        ScoreWorker,
        max_batch_size=max(2, served.max_batch),
        max_wait_time=served.max_wait,
        timeout=served.timeout,
        route=ROUTE,
    )
    server.run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
