"""Secrets that go into a header: read from the environment, and never shown."""

from __future__ import annotations

import os

from ..errors import SettingsError

TOKEN = "OATFLOW_ORACLE_TOKEN"
"""Of a reward service: what it is started with, and what its clients need."""


def read_bearer_secret(name: str) -> str:
    """Return the secret in that variable, "" where there is none. Raises `SettingsError` if no header can carry it."""
    secret = os.environ.get(name, "").strip()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsError(f"{name}: not a key or token: it holds spaces or characters that no header can carry")
    return secret
