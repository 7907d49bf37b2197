"""Ten thousand requests that are none: each is refused, none is a crash, and good ones between them are answered."""

import asyncio
import json
import random
from collections import Counter
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest

from .conftest import TOKEN

pytestmark = pytest.mark.slow

REQUESTS, AT_A_TIME = 10_000, 48
PATHS = ("/v1/compare", "/get_feedback")
GOOD = {"duels": [{"prompt": "the soup", "first": "was good", "second": "was bad"}]}
ODD = (
    None, True, 0, -1, 1.5, 2**63, "", "word", "\0", "ä" * 50, [], {}, [[]], [None], {"a": {}}, ["a", "b"],
    [["a", "b"]],
)  # fmt: skip
KEYS = ("duels", "prompt", "first", "second", "batch_prompt", "batch_response", "batch_candidates", "", "__class__")


def anything(source, depth=0):
    """Some value, now and then a deep one."""
    kind = source.random()
    if depth > 4 or kind < 0.5:
        return source.choice(ODD)
    if kind < 0.75:
        return [anything(source, depth + 1) for _ in range(source.randrange(4))]
    return {source.choice(KEYS): anything(source, depth + 1) for _ in range(source.randrange(4))}


def no_request(source):
    value = anything(source)
    return value | {"more": 10} if isinstance(value, dict) and "batch_prompt" not in value else [value]


def almost_json(source):
    """A good request with one thing wrong."""
    request = json.loads(json.dumps(GOOD))
    duel = request["duels"][0]
    change = source.randrange(5)
    if change == 0:
        duel[source.choice(list(duel))] = source.choice([odd for odd in ODD if not isinstance(odd, str)])
    elif change == 1:
        del duel[source.choice(list(duel))]
    elif change == 2:
        duel["more"] = source.choice(ODD)
    elif change == 3:
        request["duels"] *= 9 + source.randrange(50)
    else:
        request["duels"] = source.choice([odd for odd in ODD if odd != []])
    return json.dumps(request).encode()


def almost_oat(source):
    """Oat's request with lists of other lengths, or both kinds at once."""
    count = 1 + source.randrange(3)
    request = {"batch_prompt": ["soup"] * count, "batch_response": [], "batch_candidates": [["good", "bad"]] * count}
    change = source.randrange(4)
    if change == 0:
        request["batch_prompt"] += ["more"]
    elif change == 1:
        request["batch_response"] = ["good"] * count
    elif change == 2:
        request["batch_candidates"] = [["good"] * source.choice([0, 1, 3])] * count
    else:
        request["batch_candidates"] = [source.choice([odd for odd in ODD if odd != ["a", "b"]])] * count
    return msgspec.msgpack.encode(request)


def nested(source):
    deep = 1000 + source.randrange(8000)
    return source.choice([b"[" * deep, b'{"duels":' * (deep // 9), b"\x91" * deep, b"\x81\xa1a" * (deep // 3)])


def cut(source):
    whole = source.choice([json.dumps(GOOD).encode(), msgspec.msgpack.encode(GOOD)])
    return whole[: source.randrange(len(whole))]


BODIES = (
    lambda source: source.randbytes(source.randrange(300)),
    lambda source: json.dumps(no_request(source)).encode(),
    lambda source: msgspec.msgpack.encode(no_request(source)),
    almost_json,
    almost_oat,
    nested,
    cut,
    lambda source: b"x" * (20_001 + source.randrange(5000)),
)
AUTHORIZED = b"POST /v1/compare HTTP/1.1\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
RAW = (
    b"\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"POST\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\n\r\n",
    b"POST /v1/compare HTTP/9.9\r\n\r\n",
    b"POST /v1/compare HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/compare HTTP/1.1\r\nContent-Length: a\r\n\r\n",
    AUTHORIZED + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n",
    AUTHORIZED + b"Content-Length: 50\r\n\r\n{",
    AUTHORIZED + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


async def fuzz(url, numbers, statuses, answers):
    """Send requests until there is no number left."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
        for number in numbers:
            source = random.Random(f"fuzz:{number}")
            kind = source.random()
            if kind < 0.02:
                answers.append(await good(session, url))
            elif kind < 0.05:
                await raw(url, source.choice(RAW))
            else:
                statuses[await bad(session, url, source, kind)] += 1


async def good(session, url):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with session.post(url + PATHS[0], data=json.dumps(GOOD).encode(), headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["answers"]


async def bad(session, url, source, kind):
    """Send one thing that is wrong in some way; returns the status."""
    method, path, body = "POST", source.choice(PATHS), source.choice(BODIES)(source)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    if kind < 0.10:
        method = source.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
        # What HTTP does not know is hung up on at once, perhaps before all is sent.
        body = body if method != "BREW" else b""
    elif kind < 0.15:
        path = source.choice(["/", "//", "/v1", "/v1/compare/", "/../etc/passwd", "/scores", "/inference", "/v1/%00"])
    elif kind < 0.20:
        headers["Authorization"] = source.choice(["", "Bearer", "Bearer x", "Basic eDp5", f"bearer  {TOKEN}x", "ä"])
    elif kind < 0.35:
        headers["Content-Type"] = source.choice(
            ["text/html", "multipart/form-data", "a", "application/json; charset=x"]
        )
    elif kind < 0.40:
        headers["Content-Encoding"] = source.choice(["gzip", "deflate", "br", "zstd", "nothing"])
    data = chunks(body) if source.random() < 0.2 else body
    async with session.request(method, url + path, data=data, headers=headers) as answer:
        await answer.read()
        return answer.status


async def chunks(body):
    for start in range(0, len(body), 4096):
        yield body[start : start + 4096]


async def raw(url, line):
    """Say something that is not even HTTP, and hang up, be it answered or not."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(line)
    await writer.drain()
    writer.close()


async def fuzz_all(url):
    statuses, answers, numbers = Counter(), [], iter(range(REQUESTS))
    await asyncio.gather(*(fuzz(url, numbers, statuses, answers) for _ in range(AT_A_TIME)))
    return statuses, answers


def test_what_is_no_request_is_refused_ten_thousand_times_and_harms_nobody(server):
    expected = json.loads(server.ask(PATHS[0], json.dumps(GOOD).encode())[1])["answers"]
    before, said_before = server.children(), server.log.read_text()
    statuses, answers = asyncio.run(fuzz_all(server.url))
    assert set(statuses) <= {400, 401, 404, 405, 413, 415, 422}, statuses
    assert {401, 404, 405, 413, 415, 422} <= set(statuses) and sum(statuses.values()) > 9000
    assert len(answers) > 100
    for answer in answers:
        assert answer[0]["first_wins"] == pytest.approx(expected[0]["first_wins"], abs=1e-5)
    assert json.loads(server.ask(PATHS[0], json.dumps(GOOD).encode())[1])["answers"] == expected
    assert server.metric("oatflow_reward_under_way") == 0
    assert server.process.poll() is None and server.children() == before
    assert server.log.read_text() == said_before
