"""vLLM's own OpenAI server as the judge's endpoint, on the CPU, with a real small model.

A chat with so small a model is no judge: it repeats the question. It does name a digit after examples, as a base model
would; so the server is given a chat template that hands the text on as it is, and the judge a template with examples.
What it prefers is another matter: its favour for a place is measured, not expected to be small.
"""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import fmean

import httpx2
import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.oracles.judge import JudgeOracle
from oatflow.components.oracles.oracle import Circumstances
from oatflow.components.oracles.settings import JudgeSettings
from oatflow.components.records.records import Duel, duel_id
from oatflow.pipelines.laptop.starting_model import find_smollm2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = "SmolLM2-135M-Instruct"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %} "
EXAMPLES = """Prompt: name a colour
Answer 0: Blue is a colour.
Answer 1: No.
Better answer: 0

Prompt: say hello
Answer 0: Go away.
Answer 1: Hello, nice to meet you!
Better answer: 1

{prompt}
{first}
{second}
Better answer:"""
WARM, COLD = "It was a joy from start to finish.", "It was dull, and nobody should go."
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip


@contextmanager
def vllm_server(folder, log):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048",
        "--enforce-eager", "--dtype", "float32", "--chat-template", CHAT_TEMPLATE,
    ]  # fmt: skip
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **ENVIRONMENT}, start_new_session=True
        )
    try:
        until_ready(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, 15)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def until_ready(server, url, log):
    for _ in range(1200):
        try:
            if httpx2.get(f"{url}/health", timeout=1, trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.5)
    pytest.fail(f"vLLM did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_server(find_smollm2(folder), folder / "log") as address:
        yield address


@pytest.fixture(scope="module")
def duels():
    prompts = [
        f"Write a one-sentence review of a {thing}." for thing in ("tea room", "night bus", "puppet show", "spa")
    ]
    pairs = [(prompt, *texts) for prompt in prompts for texts in ((WARM, COLD), (COLD, WARM))]
    return [Duel(duel_id(*pair), "p", *pair, 0, 1, clash=False) for pair in pairs]


@pytest.fixture
def judge(url, tmp_path):
    template = tmp_path / "examples.txt"
    template.write_text(EXAMPLES)

    def open_it(**settings):
        defaults = {"judge_model": MODEL, "judge_url": url, "judge_template": str(template)}
        return JudgeOracle(JudgeSettings.parse({**defaults, **settings}), Circumstances())

    return open_it


def test_a_real_judge_gives_probabilities_and_its_favour_for_a_place_is_known(judge, duels):
    oracle = judge()
    oracle.check_ready()
    answers = oracle.compare_duels(duels)
    readable = [answer for answer in answers if answer.first_wins is not None]
    assert len(readable) >= len(duels) / 2, [answer.raw for answer in answers]
    assert all(0 <= answer.first_wins <= 1 and answer.orders == "both" for answer in readable)
    assert all(isinstance(answer.consistent, bool) and answer.input_tokens > 200 for answer in readable)
    favour = fmean(answer.shown_first_wins for answer in readable)
    consistent = fmean(answer.consistent for answer in readable)
    print(f"{len(readable)} of {len(duels)} readable, shown first wins {favour:.3f}, consistent {consistent:.3f}")
    assert 0 <= favour <= 1
    # Both sides of a duel are the same two requests, up to the arithmetic of other batches.
    for there, back in zip(answers[::2], answers[1::2], strict=True):
        if there.first_wins is not None and back.first_wins is not None:
            assert there.first_wins + back.first_wins == pytest.approx(1, abs=0.02)


def test_the_same_question_is_answered_the_same_again(judge, duels):
    first, second = (judge(judge_orders="one").compare_duels(duels[:4]) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.orders == other.orders
        assert (one.first_wins is None) == (other.first_wins is None)
        assert one.first_wins is None or one.first_wins == pytest.approx(other.first_wins, abs=0.02)


def test_a_real_judge_s_text_is_read_or_unreadable(judge, duels):
    answers = judge(judge_verdict="parsed", judge_max_tokens=8, judge_orders="one").compare_duels(duels[:4])
    assert all(answer.first_wins in (0.0, 1.0, None) and answer.requests == 1 for answer in answers)
    assert all(1 <= answer.output_tokens <= 8 for answer in answers)


def test_what_our_own_template_gets_out_of_so_small_a_model_is_a_probability_or_unreadable(judge, duels):
    (answer,) = judge(judge_template="").compare_duels(duels[:1])
    assert answer.first_wins is None or 0 <= answer.first_wins <= 1
    assert answer.raw and answer.requests == 2


def test_another_model_is_not_served(judge):
    with pytest.raises(RefusedInput, match="not served at"):
        judge(judge_model="gpt-9").check_ready()


def test_a_question_that_is_too_long_for_the_model_is_unreadable(judge):
    long = Duel("d", "p", "Which?", "good " * 5000, "bad", 0, 1, clash=False)
    (answer,) = judge().compare_duels([long])
    assert answer.first_wins is None and "HTTP 400" in answer.raw
