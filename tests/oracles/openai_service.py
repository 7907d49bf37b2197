"""An OpenAI-compatible endpoint on loopback: a deterministic judge, strict about requests, that fails on purpose.

It refuses what OpenAI's chat completions refuse (missing fields, wrong types, unknown arguments). Its verdict follows
from the texts that it finds between the markers of the message, so that a mix-up shows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import exp, log

from oatflow.components.records.records import duel_id

from .faulty_service import FaultyService, _Handler, served

FAULTS = ("error", "busy", "silent", "dropped", "slow", "truncated", "malformed")
NOT_BILLED = ("error", "busy")
MODEL = "judge-1"
KEY = "sk-this-is-secret"

_TEXT = re.compile(r"<<<begin ([^\n]*) ([0-9a-f]{16})>>>\n(.*?)\n<<<end \1 \2>>>", re.DOTALL)
_TYPES = {
    "model": str, "messages": list, "temperature": (int, float), "max_tokens": int, "logprobs": bool,
    "top_logprobs": int,
}  # fmt: skip


def reward(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**31 - 1


def prefers(shown_first: str, shown_second: str, bias: float = 0.0) -> float:
    """What the judge thinks of the one shown first; `bias`: its favour for that place, in logits."""
    return 1 / (1 + exp(reward(shown_second) - reward(shown_first) - bias))


class OpenAIService(FaultyService):
    """What a test may set besides what it may of a faulty service."""

    bias = 0.0
    logprobs = "given"
    """given; missing: none in the reply; refused: HTTP 400."""
    counts_tokens = True
    billed_tokens = 0
    """Tokens of all questions and answers that its provider asks money for: also of those that never arrived."""
    extra_tokens = 0
    """Tokens of its own that it adds to each question."""
    lists_models = True
    says: Callable[[str, str, str], str | dict] | None = None
    """Text of the reply to a prompt and the two answers shown, or a whole choice."""

    def __init__(self, *how):
        super().__init__(*how)
        self.first_replies: list[tuple[int, dict[str, str], bytes]] = []
        """Replies to the first requests, whatever they ask."""


@contextmanager
def openai_service(
    rate: float = 0.0, seed: int = 0, faults: Sequence[str] = FAULTS, hold: float = 3.0
) -> Iterator[OpenAIService]:
    service = OpenAIService(rate, seed, faults, hold)
    service.token = KEY
    with served(service, _OpenAI, "/v1"):
        yield service


class _OpenAI(_Handler):
    service: OpenAIService

    def _answer(self, body: bytes):
        service = self.service
        with service.lock:
            service.requests.append((self.command, self.path, dict(self.headers), body))
        if service.down():
            self._hang_up()
        elif service.first_replies or service.always:
            self._reply(*(service.first_replies.pop(0) if service.first_replies else service.always))
        elif service.token and self.headers.get("authorization") != f"Bearer {service.token}":
            self._refuse(401, f"Incorrect API key provided: {self.headers.get('authorization')}", "invalid_api_key")
        elif (self.command, self.path) == ("GET", "/v1/models") and service.lists_models:
            self._reply(200, {}, json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode())
        elif (self.command, self.path) == ("POST", "/v1/chat/completions"):
            self._judge(body)
        else:
            self._refuse(404, "Not Found", None)

    def _judge(self, body: bytes):
        asked = json.loads(body)
        if problem := problem_of(asked):
            return self._refuse(400, problem, "invalid_request")
        if asked["model"] != MODEL:
            return self._refuse(404, f"The model `{asked['model']}` does not exist", "model_not_found")
        if self.service.logprobs == "refused" and "logprobs" in asked:
            return self._refuse(400, "logprobs is not supported by this model", "unsupported_parameter")
        texts = shown(asked)
        if "FILTERED" in "".join(texts):
            return self._refuse(400, "The response was filtered", "content_filter")
        if len(texts[1]) > 20_000:
            return self._refuse(400, "This model's maximum context length is 4096 tokens", "context_length_exceeded")
        good = json.dumps(self._completion(asked, texts)).encode()
        fault = self.service.fault_for(body)
        if fault not in NOT_BILLED:
            with self.service.lock:
                self.service.billed_tokens += count_tokens(asked) + self.service.extra_tokens + 1
        if fault:
            return getattr(self, f"_{fault}")(good, [])
        # Counted first: whoever has the reply may look at the count.
        with self.service.lock:
            self.service.answered[duel_id(*texts)] += 1
        self._reply(200, {}, good)
        self.service.after_answers(self.service.answered.total())

    def _completion(self, asked: dict, texts: tuple[str, str, str]) -> dict:
        service = self.service
        first = prefers(*texts[1:], service.bias)
        said = service.says(*texts) if service.says else "0" if first > 0.5 else "1"
        choice = said if isinstance(said, dict) else {
            "index": 0, "message": {"role": "assistant", "content": said, "refusal": None}, "finish_reason": "stop",
        }  # fmt: skip
        if asked.get("logprobs") and service.logprobs == "given" and not isinstance(said, dict):
            top = [{"token": token, "logprob": log(p), "bytes": None} for token, p in (("0", first), ("1", 1 - first))]
            choice["logprobs"] = {"content": [{"token": said, "logprob": -0.1, "top_logprobs": top}]}
        tokens = count_tokens(asked) + service.extra_tokens
        usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}
        return {**completion, **({"usage": usage} if service.counts_tokens else {})}

    def _refuse(self, status: int, message: str, code: str | None):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self._reply(status, {"content-type": "application/json"}, json.dumps({"error": error}).encode())


def count_tokens(asked: dict) -> int:
    return sum(len(message["content"]) for message in asked["messages"]) // 4


def problem_of(asked: dict) -> str | None:
    """What OpenAI would refuse in a request, or None."""
    for name in ("model", "messages"):
        if name not in asked:
            return f"you must provide a {name} parameter"
    for name, value in asked.items():
        if name not in _TYPES:
            return f"Unrecognized request argument supplied: {name}"
        if not isinstance(value, _TYPES[name]) or (isinstance(value, bool) and name != "logprobs"):
            return f"{value!r} is not of the type that {name} has"
    if not 0 <= asked.get("temperature", 1) <= 2 or asked.get("max_tokens", 1) < 1:
        return "out of range"
    if not 0 <= asked.get("top_logprobs", 0) <= 20 or ("top_logprobs" in asked and not asked.get("logprobs")):
        return "top_logprobs needs logprobs, and is at most 20"
    roles = [message.get("role") for message in asked["messages"] if isinstance(message.get("content"), str)]
    return None if roles in (["system", "user"], ["user"]) else f"Invalid messages: {roles}"


def shown(asked: dict) -> tuple[str, str, str]:
    """The prompt and the two answers of a request, in the order shown."""
    texts = {match[1]: match[3] for match in _TEXT.finditer(asked["messages"][-1]["content"])}
    return texts["prompt"], texts["answer 0"], texts["answer 1"]
