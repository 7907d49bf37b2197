"""The connections below the S3 SDK: how long one request may take. Nothing is tried again here (`patience` does)."""

from __future__ import annotations

import os

import certifi
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

CONNECT_SECONDS = 3.0
# SeaweedFS makes contended conditional writes wait for seconds; a slow uplink needs as long for one part of a file.
ANSWER_SECONDS = 60.0


def open_connections() -> PoolManager:
    """Return a pool that sends each request once, and waits ANSWER_SECONDS at most for the next bytes of an answer."""
    pool = PoolManager(
        maxsize=32,
        timeout=Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=False,
    )
    pool.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
    return pool


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
