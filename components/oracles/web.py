"""An HTTP client for services that are not trusted: it checks addresses, and limits the time and size of each reply.

The only module that imports httpx2; others catch `NoReply`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

from ..errors import SettingsError

NoReply = httpx2.RequestError
"""A request got no usable reply: no connection, a timeout, or a reply that is broken, too large or compressed."""
NoConnection = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""The request was not sent."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Clouds hand out a machine's credentials at these addresses, to any process on the machine.
_METADATA_NETWORKS = [
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local
        "fe80::/10",
        "fec0::/10",
        "fd00:ec2::/32",  # Amazon: ::254, and ::23 in EKS
        "fd20:ce::/32",  # Google
        "fd00:c1::/32",  # Oracle
        "192.0.0.192/32",
        "fd00:42::/32",  # Scaleway
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure
        "64:ff9b:1::/48",  # local NAT64: an IPv4 address may be anywhere in it
    )
]
_METADATA_HOSTS = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.tencentyun.com",
    "metadata.azure.internal",
    "api.metadata.cloud.ibm.com",
}
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\]")
_PLAIN_HOST = re.compile(r"[A-Za-z0-9._:-]+")
# A body is sent in pieces, and the deadline is checked before each.
_PIECE = 8192


class ForbiddenAddress(SettingsError):
    """A host resolves to an address that requests are never sent to."""


class UnusableReply(httpx2.RequestError):
    """A reply is too large, or compressed."""


def check_url(name: str, url: str, allowed: Sequence[str]) -> str:
    """Return the address of a service without its last slash.

    An address is http or https, a host, a port and a path. Private addresses are allowed, for services in the cluster,
    and so is a host that cannot be resolved: it may resolve where the step runs.

    Args:
        name: The setting, for errors.
        url: The address.
        allowed: Hosts that it may name; empty: any.

    Raises:
        SettingsError: It is no such address, its host is not allowed, or it leads to a cloud's metadata service.
    """
    refused = f"{name}={redact_url(url)!r}: "
    if _UNPRINTABLE.search(url):
        raise SettingsError(f"{refused}expected an address without spaces and backslashes")
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise SettingsError(f"{refused}not an address ({error})") from None
    if parts.scheme not in ("http", "https"):
        raise SettingsError(f"{refused}expected http:// or https://")
    if "@" in parts.netloc:
        raise SettingsError(f"{refused}expected no user and password; a token belongs in the environment")
    if not host:
        raise SettingsError(f"{refused}expected a host, such as http://reward-model:8000")
    if not _PLAIN_HOST.fullmatch(host):
        raise SettingsError(f"{refused}expected a host of plain letters, without a zone (others are written xn--...)")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise SettingsError(f"{refused}expected nothing after the path")
    if allowed and host not in {other.lower().rstrip(".") for other in allowed}:
        raise SettingsError(f"{refused}host {host!r} is not allowed; allowed: {', '.join(allowed)}")
    try:
        _resolve_host(host)
    except ForbiddenAddress as error:
        raise SettingsError(f"{refused}{error}") from None
    except OSError:
        pass  # The first request reports it.
    return url.rstrip("/")


def redact_url(url: str) -> str:
    """Return an address that is safe to print: no password, query or control characters, at most 200 characters."""
    bare = re.sub(r"^([^/?#]*//)?[^/?#]*@", r"\1***@", re.sub(r"[?#].*", "", url, flags=re.DOTALL))
    return "".join(letter for letter in bare if letter.isprintable())[:200]


def open_capped_client(
    timeout: float, connections: int, most_bytes: int = 4 * 2**20, headers: Mapping[str, str] | None = None
) -> httpx2.Client:
    """Return a client for services that are not trusted.

    It does not follow redirects or use the environment's proxies, and never connects to a cloud's metadata service,
    whatever the host resolves to at that moment.

    Args:
        timeout: Seconds for a whole reply, also if its bytes trickle in.
        connections: Most connections at a time.
        most_bytes: Largest reply. Compressed replies are refused.
        headers: Sent with each request.
    """
    return httpx2.Client(
        transport=_CappedTransport(timeout, connections, most_bytes),
        headers={"accept-encoding": "identity", **(headers or {})},
        timeout=timeout,
        follow_redirects=False,
        trust_env=False,
    )


def read_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds in a Retry-After header, which may hold a date; None if there is none."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _resolve_host(host: str) -> list[str]:
    """Return a host's addresses. Raises `ForbiddenAddress` if one is forbidden, and `OSError` if there is none."""
    if host.lower().rstrip(".") in _METADATA_HOSTS:
        raise ForbiddenAddress(f"host {host!r} hands out a machine's credentials, and is never asked")
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    for address in found:
        if _is_metadata(ipaddress.ip_address(address.partition("%")[0])):
            raise ForbiddenAddress(f"host {host!r} leads to the link-local or metadata address {address}: never asked")
    return found


def _is_metadata(address: Address) -> bool:
    return any(one in network for one in [address, *_find_embedded(address)] for network in _METADATA_NETWORKS)


def _find_embedded(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address may contain."""
    if address.version == 4:
        return []
    # Mapped, compatible and translated addresses, ISATAP and most NAT64 prefixes have it in their last 32 bits.
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = [last, address.sixtofour, *(address.teredo or ())]
    return [one for one in inner if one is not None]


class _Deadline(threading.local):
    """The time by which this thread's current reply must be complete."""

    at = float("inf")

    def left(self, timeout: float | None) -> float:
        """Return the seconds left for one operation."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("timed out")
        return left if timeout is None else min(timeout, left)


class _CappedStream(httpcore2.NetworkStream):
    """A connection whose operations end at the reply's deadline."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline):
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE):
            self._stream.write(buffer[start : start + _PIECE], self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _CappedStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _CheckedBackend(httpcore2.SyncBackend):
    """Connects to the addresses that were checked: the name is not resolved a second time."""

    def __init__(self, deadline: _Deadline):
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: Exception = httpcore2.ConnectError(f"host {host!r} has no address")
        for address in self._resolve_or_fail(host):
            try:
                left = self._deadline.left(timeout)
                stream = super().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _CappedStream(stream, self._deadline)
        raise failure

    def _resolve_or_fail(self, host: str) -> list[str]:
        try:
            return list(dict.fromkeys(_resolve_host(host)))
        except OSError as error:
            raise httpcore2.ConnectError(f"host {host!r} cannot be resolved ({error})") from error


class _CappedTransport(httpx2.HTTPTransport):
    def __init__(self, timeout: float, connections: int, most_bytes: int):
        # Not the constructor of the base: it takes no network backend.
        self._deadline = _Deadline()
        self._timeout, self._most_bytes = timeout, most_bytes
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=5.0,
            network_backend=_CheckedBackend(self._deadline),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self._deadline.at = time.monotonic() + self._timeout
        response = super().handle_request(request)
        try:
            self._check_head(response)
        except UnusableReply:
            response.close()
            raise
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _CappedBody(response.stream, self._most_bytes)
        return response

    def _check_head(self, response: httpx2.Response) -> None:
        if (encoding := response.headers.get("content-encoding", "identity")).lower() != "identity":
            raise UnusableReply(f"the reply is compressed ({encoding[:20]}), which it was asked not to be")
        length = response.headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._most_bytes:
            raise UnusableReply(f"the reply is larger than {self._most_bytes} bytes")


class _CappedBody(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, most_bytes: int):
        self._stream = stream
        self._most_bytes = most_bytes

    def __iter__(self) -> Iterator[bytes]:
        left = self._most_bytes
        for part in self._stream:
            left -= len(part)
            if left < 0:
                raise UnusableReply(f"the reply is larger than {self._most_bytes} bytes")
            yield part

    def close(self) -> None:
        self._stream.close()
