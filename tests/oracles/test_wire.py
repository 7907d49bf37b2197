"""Both sides of the wire, and Oat's protocol bit for bit."""

import json
import math
from pathlib import Path

import msgpack
import msgspec
import pytest
from oatflow.components.oracles import wire
from oatflow.components.oracles.bradley_terry import win_probability
from oatflow.components.oracles.oracle import Answer
from oatflow.components.oracles.wire import WireAnswer, WireDuel, WireError
from oatflow.components.records.records import Duel

OAT = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]


def duels(number):
    return [Duel(f"d{n}", f"p{n}", f"q{n}", f"a{n}", f"b{n}", 0, 1, False) for n in range(number)]


ONE, THREE = duels(1), duels(3)


def test_oats_client_sends_these_very_bytes():
    asked = [request["body"] for request in OAT["remote_client"]["requests"] if request["body"]["batch_candidates"]]
    sent = [wire.write_oat_request(THREE[:2]), wire.write_oat_request(THREE[2:])]
    assert sent == [msgspec.msgpack.encode(body) for body in asked]
    assert [msgpack.unpackb(body) for body in sent] == asked
    assert [list(msgpack.unpackb(body)) for body in sent] == [list(body) for body in asked]


def test_oats_server_answers_duels_and_scores_responses():
    server = OAT["server"]
    score = server["scores"]
    pairs = server["preference_request"]
    body = {"batch_prompt": ["?"] * len(pairs), "batch_response": [], "batch_candidates": pairs}
    asked = wire.read_oat_request(msgspec.msgpack.encode(body))
    assert asked.duels == [WireDuel("?", *pair) for pair in pairs]
    assert asked.responses == []
    first_wins = [win_probability(score[duel.first], score[duel.second], 1) for duel in asked.duels]
    reply = msgpack.unpackb(wire.write_oat_answers(first_wins=first_wins))
    assert reply["batch_first_win_prob"] == pytest.approx(server["batch_first_win_prob"], abs=1e-7)

    responses = server["reward_request"]
    body = {"batch_prompt": ["?"] * len(responses), "batch_response": responses, "batch_candidates": []}
    asked = wire.read_oat_request(msgspec.msgpack.encode(body))
    assert asked.responses == [("?", response) for response in responses]
    assert asked.duels == []
    reply = msgpack.unpackb(wire.write_oat_answers(scores=[score[response] for _, response in asked.responses]))
    assert reply["batch_score"] == server["batch_score"]


def test_oats_answers_are_read_as_probabilities_in_order():
    reply = msgspec.msgpack.encode({"batch_first_win_prob": [0.1, 1, 0.25], "batch_score": None})
    assert wire.read_oat_answers(reply, THREE) == {"d0": Answer(0.1), "d1": Answer(1.0), "d2": Answer(0.25)}


def test_float32_of_a_service_in_numpy_is_read():
    reply = msgpack.packb({"batch_first_win_prob": [0.25], "batch_score": []}, use_single_float=True)
    assert wire.read_oat_answers(reply, ONE) == {"d0": Answer(0.25)}


@pytest.mark.parametrize("number", [0, 1, 3])
def test_what_one_side_writes_the_other_reads(number):
    asked = duels(number)
    assert wire.read_json_request(wire.write_json_request(asked)) == [
        WireDuel(d.prompt, d.first, d.second) for d in asked
    ]
    answers = [WireAnswer(0.1 * n, 1.5, None) for n in range(number)]
    identity, read = wire.read_json_answers(wire.write_json_answers("judy@1", answers), asked)
    assert identity == "judy@1"
    assert read == {d.duel_id: Answer(a.first_wins, a.first_reward) for d, a in zip(asked, answers, strict=True)}
    assert wire.read_json_identity(wire.write_json_identity("judy@1")) == "judy@1"
    again = wire.read_oat_request(wire.write_oat_request(asked))
    assert again.duels == wire.read_json_request(wire.write_json_request(asked))
    read = wire.read_oat_answers(wire.write_oat_answers([a.first_wins for a in answers]), asked)
    assert read == {d.duel_id: Answer(a.first_wins) for d, a in zip(asked, answers, strict=True)}


def test_the_json_is_the_one_that_is_documented():
    assert json.loads(wire.write_json_request(ONE)) == {"duels": [{"prompt": "q0", "first": "a0", "second": "b0"}]}
    reply = b'{"identity": "m@1", "answers": [{"first_wins": 0.7, "first_reward": 1.2, "second_reward": 0.3}]}'
    assert wire.read_json_answers(reply, ONE) == ("m@1", {"d0": Answer(0.7, 1.2, 0.3)})
    assert json.loads(wire.write_json_answers("m@1", [WireAnswer(1, -2.0, 3.5)]))["answers"] == [
        {"first_wins": 1.0, "first_reward": -2.0, "second_reward": 3.5}
    ]


def test_texts_of_every_script_and_length_survive():
    duel = Duel("d0", "p", '日本\0\n"\\ 🍜', "", "é" * 70_000, 0, 1, False)
    expected = [WireDuel(duel.prompt, duel.first, duel.second)]
    assert wire.read_json_request(wire.write_json_request([duel])) == expected
    assert wire.read_oat_request(wire.write_oat_request([duel])).duels == expected


REPLIES = {
    "nothing": b"",
    "no json": b"<html>502</html>",
    "cut short": b'{"identity": "m", "answers": [{"first_wi',
    "another shape": b"[]",
    "no identity": b'{"answers": [{"first_wins": 0.5}]}',
    "empty identity": b'{"identity": " ", "answers": [{"first_wins": 0.5}]}',
    "identity with a line": b'{"identity": "m\\nx", "answers": [{"first_wins": 0.5}]}',
    "long identity": b'{"identity": "%s", "answers": [{"first_wins": 0.5}]}' % (b"m" * 301),
    "too few": b'{"identity": "m", "answers": []}',
    "too many": b'{"identity": "m", "answers": [{"first_wins": 0.5}, {"first_wins": 0.5}]}',
    "NaN": b'{"identity": "m", "answers": [{"first_wins": NaN}]}',
    "above one": b'{"identity": "m", "answers": [{"first_wins": 1.0001}]}',
    "below zero": b'{"identity": "m", "answers": [{"first_wins": -1e-9}]}',
    "null": b'{"identity": "m", "answers": [{"first_wins": null}]}',
    "text": b'{"identity": "m", "answers": [{"first_wins": "0.5"}]}',
    "true": b'{"identity": "m", "answers": [{"first_wins": true}]}',
    "infinite reward": b'{"identity": "m", "answers": [{"first_wins": 0.5, "first_reward": 1e999}]}',
    "bad letters": b'{"identity": "\xff", "answers": [{"first_wins": 0.5}]}',
    "abyss": b"[" * 200_000,
    "abyss inside": b'{"more": ' + b"[" * 200_000,
}


@pytest.mark.parametrize("body", REPLIES.values(), ids=REPLIES)
def test_a_reply_that_is_not_as_agreed_is_no_answer(body):
    with pytest.raises(WireError):
        wire.read_json_answers(body, ONE)


PROBABILITIES = {
    "NaN": [math.nan],
    "infinite": [math.inf],
    "above one": [1.5],
    "negative": [-0.1],
    "too few": [],
    "too many": [0.5, 0.5],
    "text": ["0.5"],
    "nothing": [None],
    "true": [True],
    "no list": 0.5,
    "none at all": None,
}


@pytest.mark.parametrize("said", PROBABILITIES.values(), ids=PROBABILITIES)
def test_a_reply_in_msgpack_that_is_not_as_agreed_is_no_answer(said):
    with pytest.raises(WireError):
        wire.read_oat_answers(msgspec.msgpack.encode({"batch_first_win_prob": said, "batch_score": []}), ONE)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81", b"\x90", b"{}", b"\x91" * 200_000], ids=repr)
def test_a_reply_that_is_no_msgpack_is_no_answer(body):
    with pytest.raises(WireError):
        wire.read_oat_answers(body, ONE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"duels": 3}',
        b'{"duels": [{"prompt": "q", "first": "a"}]}',
        b'{"duels": [{"prompt": "q", "first": "a", "second": null}]}',
        b'{"duels": [{"prompt": "q", "first": "a", "second": "b", "third": "c"}]}',
        b'{"duels": [], "more": 1}',
        b"[" * 200_000,
    ],
    ids=lambda body: repr(body[:70]),
)
def test_a_request_that_is_not_as_agreed_is_refused(body):
    with pytest.raises(WireError):
        wire.read_json_request(body)


@pytest.mark.parametrize(
    "asked",
    [
        {"batch_prompt": ["q"], "batch_response": ["a"], "batch_candidates": [["a", "b"]]},
        {"batch_prompt": ["q"], "batch_response": [], "batch_candidates": [["a", "b", "c"]]},
        {"batch_prompt": ["q"], "batch_response": [], "batch_candidates": [["a"]]},
        {"batch_prompt": ["q", "q"], "batch_response": [], "batch_candidates": [["a", "b"]]},
        {"batch_prompt": ["q"], "batch_response": [], "batch_candidates": []},
        {"batch_prompt": [1], "batch_response": ["a"], "batch_candidates": []},
        {"batch_response": ["a"], "batch_candidates": []},
        ["q"],
    ],
    ids=repr,
)
def test_a_request_in_msgpack_that_is_not_as_agreed_is_refused(asked):
    with pytest.raises(WireError):
        wire.read_oat_request(msgspec.msgpack.encode(asked))


def test_a_server_sends_nothing_that_a_client_would_refuse():
    for answer in (WireAnswer(math.nan), WireAnswer(1.1), WireAnswer(0.5, math.inf), WireAnswer(0.5, 0.0, math.nan)):
        with pytest.raises(WireError):
            wire.write_json_answers("m", [answer])
    with pytest.raises(WireError):
        wire.write_json_identity("")
    with pytest.raises(WireError):
        wire.write_oat_answers([-0.1])
    with pytest.raises(WireError):
        wire.write_oat_answers(scores=[math.nan])
