"""Which addresses may be asked, and a client that no service can hold, flood or lead elsewhere."""

import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.oracles import web
from oatflow.components.oracles.web import (
    ForbiddenAddress,
    NoReply,
    check_url,
    open_capped_client,
    read_retry_after,
    redact_url,
)

GOOD = [
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("http://localhost:8000/", "http://localhost:8000"),
    ("HTTP://LOCALHOST/reward//", "HTTP://LOCALHOST/reward"),
    ("https://10.0.0.7/team/a", "https://10.0.0.7/team/a"),
    ("http://[::1]:8000", "http://[::1]:8000"),
    ("http://192.168.1.2", "http://192.168.1.2"),
    ("http://reward-model.team.svc.cluster.local:8000", "http://reward-model.team.svc.cluster.local:8000"),
    ("http://no-such-host.invalid:1", "http://no-such-host.invalid:1"),
]


@pytest.mark.parametrize(("url", "kept"), GOOD, ids=[url for url, _ in GOOD])
def test_addresses_of_services_are_kept_without_their_last_slash(url, kept):
    assert check_url("remote_url", url, ()) == kept


METADATA = "never asked"
BAD = [
    ("", "expected http:// or https://"),
    ("localhost:8000", "expected http:// or https://"),
    ("ftp://x", "expected http:// or https://"),
    ("file:///etc/passwd", "expected http:// or https://"),
    ("javascript:alert(1)", "expected http:// or https://"),
    ("//reward-model", "expected http:// or https://"),
    ("http://", "expected a host"),
    ("http:///v1", "expected a host"),
    ("http://:8000", "expected a host"),
    ("http://x:port", "not an address"),
    ("http://x:99999", "not an address"),
    ("http://[::1", "not an address"),
    ("http://x y", "without spaces"),
    ("http://x\n.y", "without spaces"),
    (" http://x", "without spaces"),
    ("http://good.example\\@10.0.0.1", "without spaces and backslashes"),
    ("http://user:secret@localhost", "no user and password"),
    ("http://@localhost", "no user and password"),
    ("http://localhost?token=secret", "nothing after the path"),
    ("http://localhost/#there", "nothing after the path"),
    ("http://localhost/?", "nothing after the path"),
    ("http://rewärd", "of plain letters"),
    ("http://169。254。169。254", "of plain letters"),
    ("http://%31%36%39.254.169.254", "of plain letters"),
    ("http://169.254.169.254", METADATA),
    ("http://169.254.169.254/latest/meta-data", METADATA),
    ("https://169.254.0.1:8000", METADATA),
    ("http://2852039166", METADATA),
    ("http://0xa9fea9fe", METADATA),
    ("http://0xA9.0xFE.0xA9.0xFE", METADATA),
    ("http://0251.0376.0251.0376", METADATA),
    ("http://169.254.43518", METADATA),
    ("http://169.254.169.254.", METADATA),
    ("http://[fe80::1]", METADATA),
    ("http://[fe80::1%25lo]", "of plain letters, without a zone"),
    ("http://[febf::1]", METADATA),
    ("http://[fd00:ec2::254]", METADATA),
    ("http://[fd00:ec2::23]", METADATA),
    ("http://[fd00:ec2:0:0::23]:80", METADATA),
    ("http://[fd00:c1::a9fe:a9fe]", METADATA),
    ("http://[fd00:42::42]", METADATA),
    ("http://[fec0::1]", METADATA),
    ("http://169.254.170.23", METADATA),
    ("http://[64:ff9b:1::a9fe:a9fe]", METADATA),
    ("http://[64:ff9b:1:a9fe:a9:fe00::]", METADATA),
    ("http://[64:ff9b:1:ffff::1]", METADATA),
    ("http://[2001:db8:64::a9fe:a9fe]", METADATA),
    ("http://[::ffff:0:169.254.169.254]", METADATA),
    ("http://[2001:db8::5efe:169.254.169.254]", METADATA),
    ("http://[2001:0:1:2:3:4:5601:5601]", METADATA),
    ("http://[64:ff9b::168.63.129.16]", METADATA),
    ("http://metadata.azure.internal", METADATA),
    ("http://[::ffff:169.254.169.254]", METADATA),
    ("http://[::ffff:a9fe:a9fe]", METADATA),
    ("http://[::169.254.169.254]", METADATA),
    ("http://[64:ff9b::169.254.169.254]", METADATA),
    ("http://[2002:a9fe:a9fe::]", METADATA),
    ("http://100.100.100.200", METADATA),
    ("http://metadata.google.internal", METADATA),
    ("http://METADATA.google.internal./computeMetadata", METADATA),
    ("http://metadata", METADATA),
]


@pytest.mark.parametrize(("url", "why"), BAD, ids=[repr(url) for url, _ in BAD])
def test_other_addresses_are_refused_by_name(url, why):
    with pytest.raises(SettingsError, match=why) as caught:
        check_url("remote_url", url, ())
    assert str(caught.value).startswith("remote_url='")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_hosts_that_are_allowed_may_be_named():
    assert check_url("u", "http://Localhost:8000", ["localhost", "127.0.0.1"]) == "http://Localhost:8000"
    assert check_url("u", "http://localhost.:8000", ["LOCALHOST"]) == "http://localhost.:8000"
    for url in ("http://evil.example", "http://localhost.evil.example", "http://evil-localhost", "http://[::1]"):
        with pytest.raises(SettingsError, match="is not allowed; allowed: localhost, 127"):
            check_url("u", url, ["localhost", "127.0.0.1"])


def test_an_allowed_name_that_leads_to_metadata_is_refused_all_the_same():
    with pytest.raises(SettingsError, match="never asked"):
        check_url("u", "http://169.254.169.254", ["169.254.169.254"])


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("http://user:secret@host/path?token=secret#x", "http://***@host/path"),
        ("http://a@b@c/", "http://***@c/"),
        ("user:secret@host", "***@host"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host/\x1b[2J\n" + "x" * 500, "http://host/[2J" + "x" * 185),
    ],
)
def test_what_is_printed_of_an_address_has_no_secrets(url, printed):
    assert redact_url(url) == printed


def test_the_wish_of_a_service_is_read_in_seconds_or_as_a_date():
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read_retry_after({"retry-after": " 17 "}) == 17
    assert read_retry_after({"retry-after": "Fri, 02 Jan 2026 03:04:35 GMT"}, now) == 30
    assert read_retry_after({"retry-after": "Fri, 02 Jan 2026 03:04:00 GMT"}, now) == 0
    for nonsense in (
        {},
        {"retry-after": ""},
        {"retry-after": "-5"},
        {"retry-after": "soon"},
        {"retry-after": "9" * 99},
    ):
        assert read_retry_after(nonsense) is None


@contextmanager
def raw_server(serve):
    """A server on loopback that hands each connection, its request read, to `serve`."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def one(connection):
            with connection:
                try:
                    connection.recv(65536)
                    serve(connection, done)
                except OSError:
                    pass  # The client hung up, as it should.

        def accept():
            while not done.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


def trickle(head, byte):
    def serve(connection, done):
        connection.sendall(head)
        end = time.monotonic() + 20
        while not done.wait(0.02) and time.monotonic() < end:
            connection.sendall(byte)

    return serve


HEADS = {
    "in the body": b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
    "in the head": b"HTTP/1.1 200 OK\r\nx: ",
    "before the head": b"",
    "in the body, which has no length": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_bytes_that_trickle_in_for_ever_end_with_the_time(head):
    # A client that waits for each byte would see the server hang up, after 20 s.
    with (
        raw_server(trickle(head, b"H")) as url,
        open_capped_client(0.4, 1) as client,
        pytest.raises(NoReply) as caught,
    ):
        client.get(url)
    assert type(caught.value).__name__ == "ReadTimeout"


def flood(head, part):
    def serve(connection, done):
        connection.sendall(head)
        for _ in range(2000):
            connection.sendall(part)

    return serve


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 131072000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 19 + b"\r\n\r\n",
    ],
)
def test_a_reply_that_floods_is_cut_off(head):
    with (
        raw_server(flood(head, b"x" * 65536)) as url,
        open_capped_client(30, 1, most_bytes=100_000) as client,
        pytest.raises(NoReply, match="the reply is larger than 100000 bytes"),
    ):
        client.get(url)


def test_a_reply_as_large_as_agreed_is_read():
    body = b"x" * 100_000
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    with raw_server(lambda connection, done: connection.sendall(head + body)) as url:
        with open_capped_client(30, 1, most_bytes=100_000) as client:
            assert client.get(url).content == body
        with open_capped_client(30, 1, most_bytes=99_999) as client, pytest.raises(NoReply):
            client.get(url)


def test_a_compressed_reply_is_not_unpacked():
    reply = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nxyz"
    with (
        raw_server(lambda connection, done: connection.sendall(reply)) as url,
        open_capped_client(30, 1) as client,
        pytest.raises(NoReply, match=r"the reply is compressed \(gzip\)"),
    ):
        client.get(url)


def test_a_redirect_is_a_reply_and_is_not_followed():
    asked = []

    def serve(connection, done):
        asked.append(connection)
        connection.sendall(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")

    with raw_server(serve) as url, open_capped_client(30, 1) as client:
        reply = client.get(url)
    assert (reply.status_code, reply.headers["location"]) == (302, "http://169.254.169.254/")
    assert len(asked) == 1


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    with raw_server(lambda connection, done: connection.sendall(reply)) as url, open_capped_client(30, 1) as client:
        assert client.get(url).content == b"ok"


def test_a_name_that_leads_to_metadata_by_now_is_not_connected_to(monkeypatch):
    # The resolver is the only thing that a test cannot have for real.
    real = socket.getaddrinfo

    def rebound(host, *rest, **more):
        return real("169.254.169.254" if host == "rebound.invalid" else host, *rest, **more)

    monkeypatch.setattr(web.socket, "getaddrinfo", rebound)
    with open_capped_client(30, 1) as client, pytest.raises(ForbiddenAddress, match=r"169\.254\.169\.254: never asked"):
        client.get("http://rebound.invalid/")


def test_who_is_not_there_is_no_reply():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open_capped_client(30, 1) as client:
        with pytest.raises(NoReply):
            client.get(f"http://127.0.0.1:{port}/")
        with pytest.raises(NoReply, match="cannot be resolved"):
            client.get("http://no-such-host.invalid/")
