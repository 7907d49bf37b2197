"""Stores that settings name, as ``policy.pretrain`` does with ``s3://bucket/folder``: which server is meant."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from .store import Store, open_store


@dataclass(frozen=True, slots=True)
class SettingStores:
    """Opens the stores that an experiment's settings name.

    `ledger`: where the experiment lies. An address without ``?endpoint=`` means the same server; without a ledger, or
    where the ledger's address names no server either, it is AWS_ENDPOINT_URL or AWS. `patience_seconds`: for how long a
    request is repeated while the server is away.
    """

    ledger: str = ""
    patience_seconds: float = 0.0

    def address(self, uri: str) -> str:
        """Return an ``s3://`` address with the server that it means."""
        endpoint = parse_qs(urlsplit(self.ledger).query).get("endpoint", [""])[0]
        return uri if urlsplit(uri).query or not endpoint else f"{uri.rstrip('?')}?endpoint={endpoint}"

    def open(self, uri: str, setting: str, value: str | None = None) -> Store:
        """Open the store at an address; errors name the setting, and its `value` where it is not the address."""
        return open_store(self.address(uri), f"{setting}={(value or uri)!r}", self.patience_seconds)
