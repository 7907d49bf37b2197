"""The reward service as oracle, against a real service on loopback that fails in every way that services fail."""

import json
import socket
import threading
from pathlib import Path

import msgpack
import msgspec
import pytest
from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.oracles.oracle import Circumstances, OracleFailed
from oatflow.components.oracles.remote import RemoteOracle
from oatflow.components.oracles.settings import RemoteSettings
from oatflow.components.records.records import Duel, duel_id

from .clock import Time
from .faulty_service import FAULTS, IDENTITY, faulty_service, right_answer

OAT = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["oracles"]
pytestmark = pytest.mark.slow

PROTOCOLS = ["json", "oat"]


def duels(number, prompt="what is {}?"):
    texts = [(prompt.format(n), f"it is {n}", f"it is not {n}") for n in range(number)]
    return [Duel(duel_id(*text), f"p{n}", *text, 0, 1, False) for n, text in enumerate(texts)]


def right(asked):
    return [right_answer(duel.prompt, duel.first, duel.second) for duel in asked]


def oracle(url, said=None, time=None, **settings):
    settings = RemoteSettings(**{"remote_url": url, "remote_timeout": 20.0, **settings})
    return RemoteOracle(settings, Circumstances(say=(said if said is not None else []).append), (time or Time()).clock)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("number", [0, 1, 4, 5, 33])
def test_each_duel_gets_its_own_answer_in_order(number, protocol):
    asked = duels(number)
    with faulty_service() as service:
        answers = oracle(service.url, remote_protocol=protocol).compare_duels(asked)
    assert [answer.first_wins for answer in answers] == right(asked)
    # Requests of four: the sums over duels are those of the requests.
    assert sum(answer.requests for answer in answers) == len(service.requests) == -(-number // 4)
    assert sum(answer.retried for answer in answers) == 0
    assert service.answered == {duel.duel_id: 1 for duel in asked}
    if protocol == "json":
        assert [answer.first_reward for answer in answers] == right(asked)
        assert [answer.second_reward for answer in answers] == [-p for p in right(asked)]


def test_a_duel_that_is_given_twice_is_asked_once():
    one, two = duels(2)
    with faulty_service() as service:
        answers = oracle(service.url).compare_duels([one, two, one])
        assert [answer.first_wins for answer in answers] == right([one, two, one])
    assert service.answered == {one.duel_id: 1, two.duel_id: 1}


def test_the_requests_are_those_of_oats_client():
    golden = [request for request in OAT["remote_client"]["requests"] if request["body"]["batch_candidates"]]
    asked = [Duel(f"d{n}", f"p{n}", f"q{n}", f"a{n}", f"b{n}", 0, 1, False) for n in range(3)]
    with faulty_service() as service:
        oracle(service.url, remote_protocol="oat", remote_request_duels=2, remote_concurrency=1).compare_duels(asked)
    assert [path for _, path, _, _ in service.requests] == [request["path"] for request in golden]
    assert [body for *_, body in service.requests] == [msgspec.msgpack.encode(request["body"]) for request in golden]
    assert [msgpack.unpackb(body) for *_, body in service.requests] == [request["body"] for request in golden]


def test_oats_answers_are_those_that_oats_client_reads():
    asked = [Duel(f"d{n}", f"p{n}", f"q{n}", f"a{n}", f"b{n}", 0, 1, False) for n in range(3)]
    with faulty_service() as service:
        # The double of the golden run numbers the duels of each request from 0.1.
        replies = [0.1, 0.2], [0.1]
        settings = {"remote_protocol": "oat", "remote_request_duels": 2}
        answers = []
        for chunk, reply in zip((asked[:2], asked[2:]), replies, strict=True):
            service.always = (200, {}, msgpack.packb({"batch_first_win_prob": reply, "batch_score": []}))
            answers += oracle(service.url, **settings).compare_duels(chunk)
    assert [answer.first_wins for answer in answers] == OAT["remote_client"]["compare_probs"]


def test_a_service_that_stays_down_is_tried_as_oats_client_does():
    time = Time()
    with faulty_service() as service:
        service.down = lambda: True
        failing = oracle(
            service.url, time=time, remote_protocol="oat", remote_tries=10, remote_backoff="oat", remote_patience=0
        )
        with pytest.raises(OracleFailed):
            failing.compare_duels(duels(1))
    assert len(service.requests) == 10
    assert time.slept == pytest.approx(OAT["remote_failure"]["sleeps"], abs=1e-6)
    assert sum(time.slept) == pytest.approx(OAT["remote_failure"]["total_sleep"], abs=1e-5)


@pytest.mark.parametrize(("protocol", "number"), [("json", 2_000), ("oat", 2_000)])
def test_each_duel_is_answered_once_though_one_request_in_twenty_goes_wrong(protocol, number):
    asked = duels(number)
    settings = {"remote_protocol": protocol, "remote_concurrency": 16, "remote_timeout": 2.0}
    with faulty_service(rate=0.05, seed=6) as service:
        remote = RemoteOracle(RemoteSettings(remote_url=service.url, **settings), Circumstances(say=lambda line: None))
        answers = []
        for start in range(0, number, 1000):
            answers += remote.compare_duels(asked[start : start + 1000])
    assert [answer.first_wins for answer in answers] == right(asked)
    assert service.answered == {duel.duel_id: 1 for duel in asked}
    assert set(service.injected) == set(FAULTS)
    assert service.injected.total() > number / 4 * 0.03
    assert sum(answer.requests for answer in answers) == number / 4
    assert sum(answer.retried for answer in answers) == service.injected.total() == len(service.requests) - number / 4


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_tried_again(fault, protocol):
    asked = duels(3)
    with faulty_service(rate=0.5, seed=1, faults=[fault], hold=1.0) as service:
        said = []
        remote = oracle(
            service.url,
            said,
            remote_protocol=protocol,
            remote_timeout=0.3 if fault in ("silent", "slow") else 20.0,
            remote_request_duels=1,
        )
        answers = remote.compare_duels(asked)
        assert [answer.first_wins for answer in answers] == right(asked)
        assert service.answered == {duel.duel_id: 1 for duel in asked}
        assert sum(answer.retried for answer in answers) == service.injected[fault]
        assert said == []


def test_the_wish_of_a_busy_service_is_heeded():
    time = Time()
    with faulty_service() as service:
        replies = iter([(429, {"retry-after": "45"}, b""), (503, {"retry-after": "7"}, b""), None])

        def next_reply():
            service.always = next(replies)
            return False

        service.down = next_reply
        (answer,) = oracle(service.url, time=time).compare_duels(duels(1))
    assert time.slept == [45, 7]
    assert answer.retried == 2
    # From the first question to the answer, the pauses included.
    assert answer.seconds == 52


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_outage_of_ten_minutes_in_the_middle_pauses_says_so_and_goes_on(protocol):
    time, said = Time(), []
    asked = duels(200)
    with faulty_service() as service:
        fell = threading.Event()
        end = []

        def fall_over(answered):
            if answered >= 100 and not fell.is_set():
                end.append(time.now + 600)
                fell.set()

        service.after_answers = fall_over
        service.down = lambda: fell.is_set() and time.now < end[0]
        settings = {"remote_protocol": protocol, "remote_concurrency": 8, "remote_tries": 3}
        answers = oracle(service.url, said, time, **settings).compare_duels(asked)
    assert [answer.first_wins for answer in answers] == right(asked)
    assert service.answered == {duel.duel_id: 1 for duel in asked}
    assert time.now >= 600
    down, up = said
    assert down.startswith(f"The reward service {service.url} does not answer since ")
    assert "asking again every 30 s, for at most 60 min. What was answered is kept." in down
    assert up.startswith(f"The reward service {service.url} answers again, after ")


def test_a_service_that_is_down_for_good_stops_the_step_with_the_answers_so_far():
    time, said, down = Time(), [], threading.Event()
    asked = duels(200)
    with faulty_service() as service:
        service.after_answers = lambda answered: down.set() if answered >= 100 else None
        service.down = down.is_set
        with pytest.raises(OracleFailed) as caught:
            oracle(service.url, said, time, remote_patience=900.0).compare_duels(asked)
    letter = str(caught.value)
    assert letter.startswith(f"The reward service {service.url} has not answered for 15 min (")
    assert "What it answered before is kept, and is not asked again." in letter
    assert letter.endswith("then run the same again; remote_patience is 900 s.")
    kept = caught.value.answers
    # Whatever reached the service's count reached the client, and the other way round.
    assert set(kept) == set(service.answered)
    assert len(kept) >= 100
    assert {name: answer.first_wins for name, answer in kept.items()} == {
        duel.duel_id: right_answer(duel.prompt, duel.first, duel.second) for duel in asked if duel.duel_id in kept
    }
    assert len(said) == 1


def test_a_question_that_fails_for_ever_stops_the_step_but_keeps_all_others():
    time, said = Time(), []
    asked = duels(40)
    with faulty_service() as service:
        service.poisoned = lambda prompt: prompt == "what is 7?"
        with pytest.raises(OracleFailed, match="500 Internal Server Error") as caught:
            oracle(service.url, said, time, remote_request_duels=1, remote_concurrency=4).compare_duels(asked)
    assert set(caught.value.answers) == {duel.duel_id for duel in asked} - {asked[7].duel_id}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_token_that_is_refused_is_told_at_once_and_not_shown(protocol, status, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", "s3cret-token")
    time, said = Time(), []
    with faulty_service() as service:
        service.always = (status, {}, b"bad token s3cret-token")
        with pytest.raises(OracleFailed, match="refuses the token in OATFLOW_ORACLE_TOKEN") as caught:
            oracle(service.url, said, time, remote_protocol=protocol, remote_concurrency=1).compare_duels(duels(40))
        with pytest.raises(RefusedInput, match="refuses the token in OATFLOW_ORACLE_TOKEN"):
            oracle(service.url, remote_protocol=protocol).check_ready()
    assert "Set OATFLOW_ORACLE_TOKEN to the token that the service was started with" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.answers == {}
    assert (time.slept, said) == ([], [])
    assert len(service.requests) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_token_goes_with_every_request_and_is_named_nowhere(protocol, monkeypatch):
    with faulty_service() as service:
        service.token = "s3cret-token"
        with pytest.raises(OracleFailed, match="wants a token, and OATFLOW_ORACLE_TOKEN is not set"):
            oracle(service.url, remote_protocol=protocol).compare_duels(duels(1))
        monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", " s3cret-token\n")
        remote = oracle(service.url, remote_protocol=protocol)
        remote.check_ready()
        assert [answer.first_wins for answer in remote.compare_duels(duels(1))] == right(duels(1))
        assert "s3cret" not in remote.identity
    assert "s3cret" not in repr(remote)


def test_a_refusal_that_repeats_the_token_is_shown_without_it(monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", "s3cret-token")
    with faulty_service() as service:
        service.always = (422, {}, b"no: Bearer s3cret-\0token \x1b[2J")
        with pytest.raises(OracleFailed, match="422 Unprocessable") as caught:
            oracle(service.url).compare_duels(duels(1))
    assert "'no: Bearer *** [2J'" in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "schlüssel"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(token, monkeypatch):
    monkeypatch.setenv("OATFLOW_ORACLE_TOKEN", token)
    with pytest.raises(SettingsError, match=r"^OATFLOW_ORACLE_TOKEN: ") as caught:
        oracle("http://localhost:1")
    assert token not in str(caught.value)


REFUSALS = {
    400: "400 Bad Request, 'because'",
    404: "404 Not Found, 'because'. Is there another service? remote_protocol is 'json'.",
    405: "405 Method Not Allowed, 'because'. Is there another service?",
    413: "Lower remote_request_duels (now 4).",
    422: "refuses the question: 422",
    499: "refuses the question: 499",
}


@pytest.mark.parametrize("status", REFUSALS)
def test_what_stays_as_it_is_fails_at_once(status):
    time, said = Time(), []
    with faulty_service() as service:
        service.always = (status, {}, b"because")
        with pytest.raises(OracleFailed) as caught:
            oracle(service.url, said, time).compare_duels(duels(1))
    assert REFUSALS[status] in str(caught.value)
    assert len(service.requests) == 1
    assert (time.slept, said) == ([], [])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_named_and_not_followed(status):
    with faulty_service() as service, faulty_service() as elsewhere:
        service.always = (status, {"location": f"{elsewhere.url}/v1/compare?token=x"}, b"")
        with pytest.raises(OracleFailed, match=r"which is not followed\. Set remote_url") as caught:
            oracle(service.url).compare_duels(duels(1))
    assert f"{elsewhere.url}/v1/compare'" in str(caught.value)
    assert "token=x" not in str(caught.value)
    assert elsewhere.requests == []


@pytest.mark.parametrize("status", [204, 408, 425, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status):
    time = Time()
    with faulty_service() as service:
        service.always = (status, {}, b"")
        service.down = lambda: len(service.requests) == 3 and setattr(service, "always", None)
        (answer,) = oracle(service.url, time=time).compare_duels(duels(1))
    assert answer.first_wins == right(duels(1))[0]
    assert (answer.requests, answer.retried) == (1, 2)
    assert len(time.slept) == 2


@pytest.mark.parametrize(
    "said",
    [
        {"answers": [{"first_wins": 0.5}]},
        {"identity": "m", "answers": [{"first_wins": 1.5}]},
        {"identity": "m", "answers": [{"first_wins": "0.5"}]},
        {"identity": "m", "answers": []},
    ],
    ids=repr,
)
def test_a_reply_that_is_not_as_agreed_is_never_an_answer(said):
    with faulty_service() as service:
        service.always = (200, {}, json.dumps(said).encode())
        with pytest.raises(OracleFailed, match="its reply is not as agreed: ") as caught:
            oracle(service.url, remote_tries=2, remote_patience=0).compare_duels(duels(1))
    assert caught.value.answers == {}


def test_a_reply_that_floods_is_a_failure_that_is_told():
    with faulty_service() as service:
        service.always = (200, {}, b" " * (5 * 2**20))
        with pytest.raises(OracleFailed, match="the reply is larger than 4194304 bytes"):
            oracle(service.url, remote_tries=1, remote_patience=0).compare_duels(duels(1))


def test_another_model_in_the_middle_of_it_stops_the_step():
    asked = duels(40)
    with faulty_service() as service:

        def deploy(answered):
            if answered >= 20:
                service.identity = "reward_model/other@ffff/T=1"

        service.after_answers = deploy
        remote = oracle(service.url, remote_concurrency=1)
        with pytest.raises(OracleFailed, match="another model was deployed") as caught:
            remote.compare_duels(asked)
    assert f"was {IDENTITY}, and is reward_model/other@ffff/T=1 by now" in str(caught.value)
    assert set(caught.value.answers) == {duel.duel_id for duel in asked[:20]}
    assert remote.identity == f"remote/{IDENTITY}"


def test_the_service_names_itself_once():
    with faulty_service() as service:
        remote = oracle(service.url)
        assert service.requests == []
        assert remote.identity == remote.identity == f"remote/{IDENTITY}"
        assert [path for _, path, _, _ in service.requests] == ["/v1/identity"]


def test_who_has_answered_is_not_asked_for_its_name():
    with faulty_service() as service:
        remote = oracle(service.url)
        remote.compare_duels(duels(1))
        assert remote.identity == f"remote/{IDENTITY}"
        assert [path for _, path, _, _ in service.requests] == ["/v1/compare"]


def test_oats_services_are_named_by_their_host_and_not_asked():
    assert (
        oracle("http://Reward-Model.invalid:8000/x", remote_protocol="oat").identity
        == "remote/oat/reward-model.invalid"
    )


def test_asking_for_the_name_is_as_patient_as_asking_for_answers():
    time, said = Time(), []
    with faulty_service() as service:
        service.down = lambda: time.now < 600
        assert oracle(service.url, said, time).identity == f"remote/{IDENTITY}"
    assert time.now >= 600
    assert len(said) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_check_asks_no_question(protocol):
    with faulty_service() as service:
        oracle(service.url, remote_protocol=protocol).check_ready()
        assert [(method, path) for method, path, _, _ in service.requests] in (
            [("GET", "/v1/identity")],
            [("GET", "/")],
        )
    assert service.answered == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_check_of_an_address_where_nobody_is_refuses_it_by_name_soon(protocol):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    time, said = Time(), []
    with pytest.raises(
        RefusedInput, match=rf"^remote_url='http://127.0.0.1:{port}': no reward service answers"
    ) as caught:
        oracle(f"http://127.0.0.1:{port}", said, time, remote_protocol=protocol).check_ready()
    assert "start it (oatflow serve-reward-model), or check the address and remote_protocol" in str(caught.value)
    assert len(time.slept) == 2
    assert said == []


def test_a_check_survives_a_service_that_fails_now_and_then():
    with faulty_service() as service:
        service.down = lambda: len(service.requests) < 3
        oracle(service.url).check_ready()


def test_a_check_of_something_else_says_what_is_there():
    with faulty_service() as service:
        service.always = (404, {}, b"")
        with pytest.raises(RefusedInput, match="Is there another service"):
            oracle(service.url).check_ready()
        service.always = (200, {}, b"MOSEC service")
        with pytest.raises(RefusedInput, match="its reply is not as agreed"):
            oracle(service.url).check_ready()
        oracle(service.url, remote_protocol="oat").check_ready()


@pytest.mark.parametrize("url", ["", "ftp://x", "http://169.254.169.254", "http://user:pw@host"])
def test_a_bad_address_is_refused_by_the_constructor(url):
    with pytest.raises(SettingsError, match=r"^remote_url='"):
        oracle(url)


def test_hosts_that_are_not_allowed_are_refused_by_the_constructor():
    with pytest.raises(SettingsError, match="allowed: reward-model"):
        oracle("http://localhost:1", remote_allowed_hosts=["reward-model"])


def test_it_costs_money_and_knows_no_reward():
    remote = oracle("http://localhost:1")
    assert (remote.paid, remote.spending, remote.known_reward) == (True, None, None)
