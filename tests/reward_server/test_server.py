"""The whole server: its answers are the model's own, over both protocols; it refuses what it should, and ends well."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from oatflow.components.oracles.oracle import OracleFailed
from oatflow.components.oracles.remote import RemoteOracle
from oatflow.components.oracles.scorer import ScorerOracle
from oatflow.components.oracles.settings import RemoteSettings, ScorerSettings
from oatflow.components.records.records import Duel

from .conftest import TOKEN, serve

pytestmark = pytest.mark.slow

OAT = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]["server"]
WORDS = "the soup was warm cold and good bad I you we liked ate it all never again . , ! ? one two".split()


def duel(number, length=1):
    """Duels of many lengths, with clashes and repetitions among them."""
    first = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(1 + number % 7 * length))
    second = " ".join(WORDS[(3 * number + place) % len(WORDS)] for place in range(1 + number % 5 * length))
    return Duel(f"d{number}", f"p{number % 4}", WORDS[number % 4], first, second, 0, 1, False)


DUELS = [duel(number) for number in range(24)]


@pytest.fixture(scope="module")
def model(reward_model):
    """The same model in this process."""
    return ScorerOracle(ScorerSettings(scorer_model=str(reward_model)))


def body(duels):
    return json.dumps({"duels": [{"prompt": d.prompt, "first": d.first, "second": d.second} for d in duels]}).encode()


def assert_gone(processes):
    """A process that was killed may take a moment, and one that nobody waits for has no command any more."""
    while any(command.exists() and command.read_text() for command in (Path(f"/proc/{n}/cmdline") for n in processes)):
        time.sleep(0.05)


def test_answers_are_those_of_the_model_itself(server, model):
    status, said = server.ask("/v1/compare", body(DUELS[:8]))
    said = json.loads(said)
    assert (status, said["identity"]) == (200, model.identity)
    for answer, expected in zip(said["answers"], model.compare_duels(DUELS[:8]), strict=True):
        assert answer["first_wins"] == pytest.approx(expected.first_wins, abs=1e-5)
        assert answer["first_reward"] == pytest.approx(expected.first_reward, abs=1e-5)
        assert answer["second_reward"] == pytest.approx(expected.second_reward, abs=1e-5)


def test_a_request_without_duels_has_no_answers(server, model):
    assert server.ask("/v1/compare", b'{"duels": []}')[0] == 200
    assert json.loads(server.ask("/v1/compare", b'{"duels": []}')[1])["answers"] == []
    empty = msgspec.msgpack.encode({"batch_prompt": [], "batch_response": [], "batch_candidates": []})
    assert msgspec.msgpack.decode(server.ask("/get_feedback", empty)[1]) == {
        "batch_first_win_prob": [],
        "batch_score": [],
    }


@pytest.mark.parametrize("protocol", ["json", "oat"])
def test_an_oracle_that_asks_it_hears_what_the_model_says(server, model, protocol, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", TOKEN)
    oracle = RemoteOracle(RemoteSettings(remote_url=server.url, remote_protocol=protocol))
    oracle.check_ready()
    answers = oracle.compare_duels(DUELS)
    assert [a.first_wins for a in answers] == pytest.approx(
        [a.first_wins for a in model.compare_duels(DUELS)], abs=1e-5
    )
    if protocol == "json":
        assert oracle.identity == f"remote/{model.identity}"
        assert [a.first_reward for a in answers] == pytest.approx(
            [a.first_reward for a in model.compare_duels(DUELS)], abs=1e-5
        )


def test_an_oracle_with_the_wrong_token_is_told_which_variable_to_set(server, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", "another")
    with pytest.raises(OracleFailed, match="OATFLOW_ORACLE_TOKEN"):
        RemoteOracle(RemoteSettings(remote_url=server.url)).compare_duels(DUELS[:1])


@pytest.mark.parametrize("token", [None, "", "another", TOKEN + "s", TOKEN[:-1], "wörd"])
@pytest.mark.parametrize("path", ["/v1/compare", "/v1/identity", "/get_feedback", "/nothing"])
def test_without_the_token_nothing_is_answered(server, token, path):
    if token == "wörd":
        token = token.encode().decode("latin-1")
    status, said = server.ask(path, None if path == "/v1/identity" else body(DUELS[:1]), token)
    assert status == 401 and "Bearer" in said.decode()


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_what_the_cluster_asks_needs_no_token(server, path):
    assert server.ask(path, token=None)[0] == 200


def test_its_metrics_are_read_by_prometheus(server):
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    server.ask("/v1/compare", body(DUELS[:2]))
    families = {family.name: family for family in text_string_to_metric_families(server.ask("/metrics")[1].decode())}
    requests = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for sample in families["oatflow_reward_requests"].samples
    }
    assert requests["/v1/compare", "200"] >= 1
    assert {"mosec_service_batch_size", "mosec_service_remaining_task"} <= set(families)
    assert families["oatflow_reward_under_way"].samples[0].value == 0


def test_requests_that_come_together_are_scored_together_and_each_gets_its_own_answer(server, model):
    batches, requests = "mosec_service_batch_size_count", "mosec_service_batch_size_sum"
    before = server.metric(batches), server.metric(requests)
    with ThreadPoolExecutor(24) as pool:
        said = list(pool.map(lambda d: json.loads(server.ask("/v1/compare", body([d]))[1])["answers"][0], DUELS * 4))
    assert [answer["first_wins"] for answer in said] == pytest.approx(
        [answer.first_wins for answer in model.compare_duels(DUELS)] * 4, abs=1e-5
    )
    assert server.metric(requests) - before[1] == len(DUELS * 4)
    assert server.metric(batches) - before[0] < len(DUELS * 4) / 2


def test_a_request_above_the_limit_is_refused_whether_it_says_so_or_not(server):
    import httpx

    url, headers = server.url + "/v1/compare", {"Authorization": f"Bearer {TOKEN}"}
    large = body([Duel("d", "p", "soup", "x" * 20000, "bad", 0, 1, False)])

    def in_chunks():
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    declared = httpx.post(url, content=large, headers=headers)
    streamed = httpx.post(url, content=in_chunks(), headers=headers)
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert "max_body" in declared.json()["error"] and "max_body" in streamed.json()["error"]
    assert httpx.post(url, content=large[:-1000], headers=headers).status_code == 422


def test_a_compressed_request_is_refused_before_it_is_unpacked(server):
    import gzip

    import httpx

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Encoding": "gzip"}
    bomb = gzip.compress(b"0" * 15_000_000)
    assert len(bomb) < 20000
    assert httpx.post(server.url + "/v1/compare", content=bomb, headers=headers).status_code == 415


@pytest.mark.parametrize(
    "malformed",
    [
        b"", b"{", b"[]", b"null", b'{"duels": 1}', b'{"duels": [{"prompt": "a"}]}', b'{"duels": [], "more": 1}',
        b'{"duels": [{"prompt": 1, "first": "b", "second": "c"}]}', b"\xff\xfe", b"[" * 15000,
        b'{"duels": [{"prompt": "\\ud800", "first": "b", "second": "c"}]}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_said_to_be_none(server, malformed):
    for path in ("/v1/compare", "/get_feedback"):
        status, said = server.ask(path, malformed)
        assert status == 422 and "expected" in json.loads(said)["error"]


def test_more_duels_than_one_request_may_have_are_refused(server):
    assert server.ask("/v1/compare", body(DUELS[:8]))[0] == 200
    status, said = server.ask("/v1/compare", body(DUELS[:9]))
    assert status == 422 and "max_duels" in said.decode()


def test_oats_client_gets_oats_numbers_and_the_end_is_polite(make_known_model, tmp_path):
    """A request that is under way when the server is told to stop is answered, and nothing stays behind."""
    folder = make_known_model(OAT["scores"])
    with serve(folder, tmp_path / "log", "--max_wait", "1500") as server:
        compared = {
            "batch_prompt": ["soup"] * len(OAT["preference_request"]), "batch_response": [],
            "batch_candidates": OAT["preference_request"],
        }  # fmt: skip
        rewarded = {
            "batch_prompt": ["soup"] * len(OAT["reward_request"]), "batch_response": OAT["reward_request"],
            "batch_candidates": [],
        }  # fmt: skip
        said = msgspec.msgpack.decode(server.ask("/get_feedback", msgspec.msgpack.encode(compared))[1])
        assert said["batch_first_win_prob"] == pytest.approx(OAT["batch_first_win_prob"], abs=1e-6)
        children = server.children()
        assert any("reward_server.score_worker" in command for command in children.values())
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(server.ask("/get_feedback", msgspec.msgpack.encode(rewarded)))
        )
        asking.start()
        while not server.metric("oatflow_reward_under_way"):
            time.sleep(0.01)
        server.process.terminate()
        asking.join(60)
        (status, answer), code = answers[0], server.process.wait(60)
    assert (status, code) == (200, 0)
    assert msgspec.msgpack.decode(answer)["batch_score"] == pytest.approx(OAT["batch_score"], abs=1e-6)
    assert_gone(children)


def test_if_the_model_dies_the_server_ends_and_says_so(reward_model, tmp_path):
    with serve(reward_model, tmp_path / "log", "--no-token", token=None) as server:
        assert server.ask("/v1/compare", body(DUELS[:1]), token=None)[0] == 200
        children = server.children()
        (worker,) = (number for number, command in children.items() if "spawn_main" in command)
        os.kill(worker, signal.SIGKILL)
        assert server.process.wait(60) == 1
    assert "the model's process ended" in server.log.read_text()
    assert_gone(children)
