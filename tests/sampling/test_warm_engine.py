import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import pytest
from oatflow.components.errors import EngineError
from oatflow.components.sampling.engine import Decoding, Request, ScriptedEngine
from oatflow.components.sampling.settings import SamplingSettings
from oatflow.components.sampling.warm_engine import WARM_ENGINE, Address, connect_engine, start_warm_engine

SETTINGS = SamplingSettings(engine="scripted")
DECODING = Decoding(1.0, 1.0, 48)
REQUESTS = [Request((1, 2, 3), (5, 2**63 - 1)), Request((4,), (6,))]


@pytest.fixture
def warm(tmp_path, monkeypatch):
    started = start_warm_engine(SETTINGS, tmp_path, "a", tmp_path / "logs")
    monkeypatch.setenv(WARM_ENGINE, started.environment()[WARM_ENGINE])
    yield started
    started.stop()


def await_true(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_warm_engine_answers_as_one_in_this_process(warm):
    told = []
    engine = connect_engine(SETTINGS)
    drawn = engine.generate(REQUESTS, DECODING, lambda *facts: told.append(facts))
    assert drawn == ScriptedEngine("a").generate(REQUESTS, DECODING)
    assert [facts[:2] for facts in told] == [(2, 3), (3, 3)]


def test_a_warm_engine_scores_as_one_in_this_process(warm):
    told, answers = [], [((1, 2, 3), (5, 6)), ((4,), (2**31,))]
    scored = connect_engine(SETTINGS).logprobs(answers, lambda *facts: told.append(facts))
    assert scored == ScriptedEngine("a").logprobs(answers)
    assert told == [(2, 2, 3)]


def test_it_outlives_its_callers_and_keeps_the_policy_they_loaded(warm, tmp_path):
    first = connect_engine(SETTINGS)
    assert first.loaded() == "a"
    first.load_policy(tmp_path, "b")
    first.close()
    second = connect_engine(SETTINGS)
    second.load_policy(lambda: pytest.fail("the weights are there already"), "b")
    assert second.generate(REQUESTS, DECODING) == ScriptedEngine("b").generate(REQUESTS, DECODING)


def test_it_survives_a_caller_that_dies_while_it_generates(warm):
    many = [Request((number,), tuple(range(20))) for number in range(500)]

    def die(done, of, tokens):
        raise KeyboardInterrupt

    victim = connect_engine(SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        victim.generate(many, DECODING, die)
    victim.close()
    assert connect_engine(SETTINGS).generate(REQUESTS, DECODING) == ScriptedEngine("a").generate(REQUESTS, DECODING)


def test_callers_take_turns(warm):
    first = connect_engine(SETTINGS)
    with pytest.raises(EngineError, match=r"not ready after 0 s; its log .*warm-engine.log"):
        connect_engine(SETTINGS, patience=0.2)
    threading.Timer(0.3, first.close).start()
    assert connect_engine(SETTINGS, patience=10).loaded() == "a"


def test_only_its_owner_can_reach_it_and_only_with_the_key(warm, capsys):
    path = Path(warm.address.socket)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with pytest.raises(AuthenticationError):
        Client(str(path), authkey=b"guess")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(json.dumps({"key": "guess"}).encode() + b'\n{"call": "loaded"}\n')
        stranger.settimeout(5)
        said = b""
        with suppress(ConnectionResetError):
            while piece := stranger.recv(100):
                said += piece
        assert b"#CHALLENGE#" in said and b"result" not in said
    assert warm.address.key not in Path(f"/proc/{warm.process.pid}/cmdline").read_text()
    assert connect_engine(SETTINGS) is not None


def test_other_settings_get_an_engine_of_their_own(warm, capsys):
    assert connect_engine(SETTINGS.model_copy(update={"max_model_len": 99})) is None
    assert "serves other settings" in capsys.readouterr().out
    assert connect_engine(SETTINGS.model_copy(update={"cpu_kv_cache_gib": 99.0, "num_samples": 5})) is not None


def test_where_it_died_the_next_caller_starts_one_and_says_so(warm, capsys):
    warm.process.kill()
    warm.process.wait()
    assert connect_engine(SETTINGS) is None
    assert "the warm engine is gone" in capsys.readouterr().out
    warm.stop()
    assert connect_engine(SETTINGS) is None


def test_dying_under_a_caller_it_leaves_an_error_with_its_log(warm):
    engine = connect_engine(SETTINGS)
    Path(warm.address.log).write_text("loading\nout of memory\n")
    warm.process.kill()
    with pytest.raises(EngineError, match=r"does not answer any more .* ends: loading / out of memory"):
        engine.generate(REQUESTS, DECODING)


def test_without_a_warm_engine_there_is_none(monkeypatch):
    monkeypatch.delenv(WARM_ENGINE, raising=False)
    assert connect_engine(SETTINGS) is None


def test_a_failure_over_there_is_an_error_here_with_its_reason(warm):
    engine = connect_engine(SETTINGS)
    with pytest.raises(EngineError, match=r"TypeError: .*unexpected keyword"):
        engine._request({"call": "generate", "requests": [], "decoding": {"warmth": 1}})
    assert "Traceback" in Path(warm.address.log).read_text()
    # Whatever state it was in, it does not serve on.
    assert warm.process.wait(120) != 0


def test_it_ends_with_the_process_that_started_it(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from oatflow.components.sampling.settings import SamplingSettings
from oatflow.components.sampling.warm_engine import start_warm_engine
started = start_warm_engine(SamplingSettings(engine="scripted"), Path("."), "a", Path({str(tmp_path)!r}))
print(started.process.pid, started.address.socket, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    starter = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert starter.returncode == -signal.SIGKILL
    pid, path = starter.stdout.split()
    await_true(lambda: not Path(path).parent.exists())
    await_true(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


def test_one_that_cannot_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="did not start; its log"):
        start_warm_engine(SETTINGS, tmp_path, "a", tmp_path)


def test_the_end_of_the_log_is_one_line(tmp_path):
    address = Address("socket", "key", str(tmp_path / "log"))
    assert address.read_log_end() == "nothing"
    (tmp_path / "log").write_text("one\n\ntwo\n  three\nfour\n")
    assert replace(address).read_log_end() == "two / three / four"
    assert json.loads(address.environment()[WARM_ENGINE])["key"] == "key"
    assert os.environ.get(WARM_ENGINE) is None
