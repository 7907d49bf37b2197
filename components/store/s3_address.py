"""Where an S3 store is and who asks for it: from a URI without secrets, and from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import RefusedInput
from .keys import checked_prefix

AWS = "https://s3.amazonaws.com"
# What the SDK takes; buckets of old may have capitals, and colons where a server has tenants.
_BUCKET = re.compile(r"(?!.*(\.\.|\.-|-\.))(?!\d+(\.\d+){3}$)[A-Za-z0-9][A-Za-z0-9_.:-]{1,61}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket, a prefix in it (empty, or ending in a slash), and a server with the keys for it."""

    uri: str
    bucket: str
    prefix: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)

    @classmethod
    def parse(cls, uri: str, environment: Mapping[str, str], named: str | None = None) -> S3Address:
        """Read ``s3://bucket/prefix?endpoint=http://host:port``. Raises `RefusedInput`, which begins with `named`."""
        parts = _split_path(uri, named or f"ledger={uri}")
        if "@" in parts.netloc or "@" in parts.query:
            # Not repeated in the message: it may hold a secret.
            setting = (named or "ledger").partition("=")[0]
            raise RefusedInput(
                f"{setting}=s3://...@...: no keys in a URI; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        named = named or f"ledger={uri}"
        if not parts.netloc:
            raise RefusedInput(f"{named}: names no bucket; write s3://bucket/prefix")
        if not _BUCKET.fullmatch(parts.netloc):
            raise RefusedInput(
                f"{named}: {parts.netloc!r} is not the name of a bucket, which has 3 to 63 letters, digits, '.' and '-'"
            )
        prefix = unquote(parts.path).strip("/")
        access_key, secret_key = _find_keys(named, environment)
        endpoint = _checked_endpoint(named, _read_endpoint(named, parts, environment))
        return cls(
            uri=uri,
            bucket=parts.netloc,
            prefix=checked_prefix(prefix) and f"{prefix}/",
            endpoint=endpoint,
            region=_find_region(endpoint, environment),
            access_key=access_key,
            secret_key=secret_key,
            session_token=environment.get("AWS_SESSION_TOKEN") or None,
        )

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        return urlsplit(self.endpoint).netloc

    @property
    def secure(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.endpoint.startswith("https://")


def _read_endpoint(named: str, parts: SplitResult, environment: Mapping[str, str]) -> str:
    query = dict(parse_qsl(parts.query))
    endpoint = query.pop("endpoint", None)
    if query or parts.fragment:
        raise RefusedInput(f"{named}: after the ? only endpoint=http://host:port may follow")
    return endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or AWS


def _checked_endpoint(named: str, endpoint: str) -> str:
    parts = _split_path(endpoint, named)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise RefusedInput(f"{named}: its endpoint {endpoint!r} is not of the form http://host:port")
    if "@" in parts.netloc:
        raise RefusedInput(f"{named}: no keys in the endpoint; they come from AWS_ACCESS_KEY_ID and its like")
    try:
        _ = parts.port
    except ValueError as error:
        raise RefusedInput(f"{named}: its endpoint {endpoint!r} has no port from 0 to 65535") from error
    return f"{parts.scheme}://{parts.netloc}"


def _split_path(url: str, named: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise RefusedInput(f"{named}: cannot be read ({error}); write s3://bucket/prefix?endpoint=...") from error


def _find_region(endpoint: str, environment: Mapping[str, str]) -> str:
    """Return the region that requests are signed for; an endpoint of AWS may name its own."""
    own = re.fullmatch(r"https?://s3\.([a-z0-9-]+)\.amazonaws\.com", endpoint)
    if own:
        return own[1]
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"


def _find_keys(named: str, environment: Mapping[str, str]) -> tuple[str, str]:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise RefusedInput(f"{named}: {' and '.join(missing)} not set; export the keys of this store")
    return environment[names[0]], environment[names[1]]
