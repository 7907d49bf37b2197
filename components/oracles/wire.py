"""Encodes and decodes the requests and replies of a reward service, for clients and servers.

There are two protocols: our JSON (POST /v1/compare, GET /v1/identity), and Oat's msgpack (POST /get_feedback), the same
bytes as Oat's client and its Mosec server. Wrong types and lengths, numbers that are not finite and probabilities
outside [0, 1] raise `WireError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import msgspec

from ..records.records import Duel
from .oracle import Answer

COMPARE, IDENTITY, OAT = "/v1/compare", "/v1/identity", "/get_feedback"
JSON_TYPE, OAT_TYPE = "application/json", "application/msgpack"

T = TypeVar("T")


class WireError(ValueError):
    """A request or reply does not follow the protocol."""


class WireDuel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A prompt and the two responses to compare."""

    prompt: str
    first: str
    second: str


class WireAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The probability that the first response wins, and both rewards if they are known."""

    first_wins: float
    first_reward: float | None = None
    second_reward: float | None = None


@dataclass(frozen=True, slots=True)
class OatRequest:
    """A request of Oat's clients: duels to compare, or responses to score. One of the lists is empty.

    Attributes:
        duels: Duels to compare.
        responses: Prompts and responses to score.
    """

    duels: list[WireDuel]
    responses: list[tuple[str, str]]


class _JsonRequest(msgspec.Struct, forbid_unknown_fields=True):
    duels: list[WireDuel]


class _JsonReply(msgspec.Struct):
    identity: str
    answers: list[WireAnswer]


class _Identity(msgspec.Struct):
    identity: str


class _OatRequest(msgspec.Struct):
    batch_prompt: list[str]
    batch_response: list[str] = []
    batch_candidates: list[tuple[str, str]] = []


class _OatReply(msgspec.Struct):
    batch_first_win_prob: list[float]


# --- Client ---


def write_json_request(duels: Sequence[Duel]) -> bytes:
    """Return the body of a request to compare duels, in our JSON."""
    return msgspec.json.encode(_JsonRequest([WireDuel(duel.prompt, duel.first, duel.second) for duel in duels]))


def read_json_answers(body: bytes, duels: Sequence[Duel]) -> tuple[str, dict[str, Answer]]:
    """Return the service's identity, and its answers by duel."""
    reply = _decode_body(body, _JsonReply, "json")
    _check_number(reply.answers, len(duels))
    answers = {
        duel.duel_id: Answer(
            _check_probability(said.first_wins), _check_reward(said.first_reward), _check_reward(said.second_reward)
        )
        for duel, said in zip(duels, reply.answers, strict=True)
    }
    return _check_name(reply.identity), answers


def read_json_identity(body: bytes) -> str:
    """Return the service's identity from the reply to GET /v1/identity."""
    return _check_name(_decode_body(body, _Identity, "json").identity)


def write_oat_request(duels: Sequence[Duel]) -> bytes:
    """Return the body of a request to compare duels as Oat's client sends it, with the keys in its order."""
    return msgspec.msgpack.encode(
        {
            "batch_prompt": [duel.prompt for duel in duels],
            "batch_response": [],
            "batch_candidates": [[duel.first, duel.second] for duel in duels],
        }
    )


def read_oat_answers(body: bytes, duels: Sequence[Duel]) -> dict[str, Answer]:
    """Return the answers of an Oat service by duel."""
    said = _decode_body(body, _OatReply, "msgpack").batch_first_win_prob
    _check_number(said, len(duels))
    return {duel.duel_id: Answer(_check_probability(first_wins)) for duel, first_wins in zip(duels, said, strict=True)}


# --- Server ---


def read_json_request(body: bytes) -> list[WireDuel]:
    """Return the duels of a request in our JSON."""
    return _decode_body(body, _JsonRequest, "json").duels


def write_json_answers(identity: str, answers: Sequence[WireAnswer]) -> bytes:
    """Return the body of the reply to a request in our JSON."""
    for answer in answers:
        _check_probability(answer.first_wins), _check_reward(answer.first_reward), _check_reward(answer.second_reward)
    return msgspec.json.encode(_JsonReply(_check_name(identity), list(answers)))


def write_json_identity(identity: str) -> bytes:
    """Return the body of the reply to GET /v1/identity."""
    return msgspec.json.encode(_Identity(_check_name(identity)))


def read_oat_request(body: bytes) -> OatRequest:
    """Return a request of Oat's clients."""
    asked = _decode_body(body, _OatRequest, "msgpack")
    if asked.batch_response and asked.batch_candidates:
        raise WireError("batch_response and batch_candidates are both given; expected one of them")
    _check_number(asked.batch_candidates or asked.batch_response, len(asked.batch_prompt))
    if asked.batch_candidates:
        pairs = zip(asked.batch_prompt, asked.batch_candidates, strict=True)
        return OatRequest([WireDuel(prompt, first, second) for prompt, (first, second) in pairs], [])
    return OatRequest([], list(zip(asked.batch_prompt, asked.batch_response, strict=True)))


def write_oat_answers(first_wins: Sequence[float] = (), scores: Sequence[float] = ()) -> bytes:
    """Return the body of a reply to Oat's clients: probabilities of duels, or scores of responses."""
    return msgspec.msgpack.encode(
        {
            "batch_first_win_prob": [_check_probability(probability) for probability in first_wins],
            "batch_score": [_check_reward(score) for score in scores],
        }
    )


def _decode_body(body: bytes, kind: type[T], form: str) -> T:
    decode = msgspec.json.decode if form == "json" else msgspec.msgpack.decode
    try:
        return decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"expected {form} as agreed: {str(error)[:200]}") from None


def _check_number(given: Sequence[object], expected: int) -> None:
    if len(given) != expected:
        raise WireError(f"{len(given)} given for {expected} asked")


def _check_probability(value: float) -> float:
    if not 0 <= value <= 1:
        raise WireError(f"{value} is no probability")
    return value


def _check_reward(value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise WireError(f"{value} is no reward")
    return value


def _check_name(identity: str) -> str:
    if not identity.strip() or len(identity) > 300 or not identity.isprintable():
        raise WireError("the identity is empty, longer than 300 letters, or not printable")
    return identity
