"""What tests of several rooms need: a real S3 server, once a session."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import pytest

S3Uri = Callable[[str], str]


@pytest.fixture(scope="session")
def s3_store_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Uri]:
    """Return a maker of s3:// URIs: every call names a prefix of its own on the session's embedded server.

    The server's keys are in the environment for the rest of the session. Mark what uses this as slow.
    """
    from oatflow.pipelines.embedded_s3 import embedded_s3

    with embedded_s3(tmp_path_factory.mktemp("embedded")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setitem(os.environ, name, value)
        yield lambda name="experiment": server.uri(f"tests/{name}-{secrets.token_hex(4)}")
