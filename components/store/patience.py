"""The connections below the S3 SDK: how long to wait for an answer, and how often to ask again."""

from __future__ import annotations

import os
import random
import time

import certifi
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

TRIES = 5
CONNECT_SECONDS = 3.0
# SeaweedFS makes contended conditional writes wait for seconds; a slow uplink needs as long for one part of a file.
ANSWER_SECONDS = 60.0
# Too many requests, a conflicting write under way, a server that fails for now.
PASSING = frozenset({409, 429, 500, 502, 503, 504})

_PAUSE_SECONDS = 0.5


def connections() -> PoolManager:
    """Return a pool that asks every request up to TRIES times, for at most ten seconds where nobody listens.

    Pauses are 0, 1, 2 and 4 seconds and some jitter. A server's Retry-After is not heeded: it has no bound.
    """
    pool = PoolManager(
        maxsize=32,
        timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=Retry(
            total=TRIES - 1,
            redirect=False,
            allowed_methods=None,
            status_forcelist=PASSING,
            raise_on_status=False,
            respect_retry_after_header=False,
            backoff_factor=_PAUSE_SECONDS,
            backoff_jitter=_PAUSE_SECONDS,
        ),
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


def pause(tries: int) -> None:
    """Sleep as the pool does after `tries` failures in a row."""
    time.sleep((_PAUSE_SECONDS * 2 ** (tries - 1) if tries > 1 else 0) + random.random() * _PAUSE_SECONDS)


def may_have_been_done_before(response: BaseHTTPResponse) -> bool:
    """Whether an earlier try of this request may have reached the server, though its answer was lost."""
    tries = response.retries.history if response.retries is not None else ()
    return any(
        (past.status or 0) >= 500 if past.error is None else not isinstance(past.error, _NEVER_SENT) for past in tries
    )


_NEVER_SENT = (NewConnectionError, ConnectTimeoutError)


class _HTTP(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(ANSWER_SECONDS)  # urllib3 would bound the sending of a whole part by CONNECT_SECONDS


class _HTTPS(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(ANSWER_SECONDS)


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTP


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPS
