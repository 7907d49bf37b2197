"""A chat endpoint that speaks OpenAI's protocol: one question, one reply. The only module that imports openai.

Errors are sorted into three: what may pass (`TryAgain`), what somebody must mend (`OracleFailed`), and what
concerns this question alone, which is a reply that cannot be read: a refusal, a content filter, a question that is
too long. An endpoint's own words are quoted in one short line, without the key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import openai
from pydantic import BaseModel, ValidationError

from ..errors import RefusedInput, SettingsError
from ..settings import did_you_mean
from .bearer import read_bearer_secret
from .judge_prompt import Message
from .oracle import OracleFailed
from .patience import TryAgain
from .settings import JudgeSettings
from .verdicts import read_logprobs, read_text
from .web import NoConnection, check_url, open_capped_client, read_retry_after, redact_url

KEY, OPENAI_KEY = "OATFLOW_JUDGE_KEY", "OPENAI_API_KEY"
TOP_LOGPROBS = 5
LONGEST_QUOTE = 200
LONGEST_RAW = 2000

_PASSING = frozenset({408, 409, 425, 429})
# The endpoint itself says that it did not answer. Other failures are those of a gateway that did not wait for its
# answer (408, 502, 504, 52x).
_NOT_BILLED = frozenset({409, 425, 429, 500, 501, 503, 529})
_NO_MODEL_LIST = frozenset({404, 405, 429, 501})


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge said. `first_wins`: the probability that the answer shown first wins, or None: unreadable.

    The tokens are None where the endpoint counts none.
    """

    first_wins: float | None
    raw: str
    input_tokens: int | None = None
    output_tokens: int | None = None


class Endpoint:
    """A judge's model at its address."""

    def __init__(self, settings: JudgeSettings):
        self.model, self._verdict = settings.judge_model, settings.judge_verdict
        self._most_tokens = settings.judge_max_tokens
        self.url = check_url("judge_url", settings.judge_url, settings.judge_allowed_hosts)
        self.host = urlsplit(self.url).netloc.lower()
        self.who = f"The judge {self.model} at {self.host}"
        self._key = find_key(self.url)
        self._client = openai.OpenAI(
            api_key=self._key or "none",
            base_url=self.url,
            max_retries=0,
            timeout=settings.judge_timeout,
            http_client=open_capped_client(settings.judge_timeout, settings.judge_concurrency),
        )

    def send_messages(self, messages: Sequence[Message]) -> Reply:
        """Ask once. Raises `TryAgain` for a failure that may pass, and `OracleFailed` for any other."""
        logprobs = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self._verdict == "logprobs" else {}
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._most_tokens,
            **logprobs,
        }
        try:
            # As text: endpoints differ in what they leave out, and the typed call takes twice as long for a request.
            content = self._client.post("/chat/completions", cast_to=str, body=body)
        except openai.APIConnectionError as error:
            was_sent = not isinstance(error.__cause__, NoConnection)
            raise TryAgain(self._quote_cause(error), may_be_paid=was_sent) from error
        except openai.APIStatusError as error:
            return self._unreadable_or_raise(error)
        except SettingsError as error:  # The host's name leads to a forbidden address by now.
            raise OracleFailed(f"judge_url: {error}") from error
        return self._read_completion(content)

    def check_model(self) -> None:
        """Ask for the list of models, once. Raises `RefusedInput` if the judge cannot be asked."""
        try:
            content = self._client.get("/models", cast_to=str)
        except openai.APIConnectionError as error:
            raise RefusedInput(f"judge_url={self.url!r}: cannot be reached ({self._quote_cause(error)})") from error
        except openai.APIStatusError as error:
            if error.status_code not in _NO_MODEL_LIST:
                raise RefusedInput(self._explain_refusal(error)) from error
        else:
            self._check_served(content)

    def _check_served(self, content: str) -> None:
        try:
            served = [model.id for model in _Models.model_validate_json(content).data]
        except ValidationError:
            return  # Not every endpoint has such a list.
        if served and self.model not in served:
            known = did_you_mean(self.model, served[:20])
            raise RefusedInput(f"judge_model={self.model!r}: not served at {self.host}; {known}")

    def _read_completion(self, content: str) -> Reply:
        try:
            completion = _Completion.model_validate_json(content)
        except ValidationError as error:
            said = self._quote_text(content)
            raise TryAgain(f"no chat completion: {said!r}", may_be_paid=True) from error
        reply = _parse_reply(completion, self._verdict == "logprobs")
        return replace(reply, raw=reply.raw.replace(self._key, "***")) if self._key else reply

    def _unreadable_or_raise(self, error: openai.APIStatusError) -> Reply:
        said, status = self._quote_message(error), error.status_code
        if status in (400, 413, 422) and _concerns_this_question_alone(error.code, said):
            return Reply(None, f"HTTP {status}: {said}", 0, 0)
        if (status in _PASSING or status >= 500) and error.code != "insufficient_quota":
            wish, may_be_paid = read_retry_after(error.response.headers), status not in _NOT_BILLED
            raise TryAgain(f"HTTP {status}: {said}", wish, may_be_paid) from error
        raise OracleFailed(self._explain_refusal(error)) from error

    def _explain_refusal(self, error: openai.APIStatusError) -> str:
        """Return what happened and what to do."""
        said, status = self._quote_message(error), error.status_code
        if status in (401, 403):
            # What the endpoint says of the key may hold parts of it.
            return f"{self.who} refuses the key (HTTP {status}); {self._locate_key()}"
        if status in (301, 302, 303, 307, 308):
            target = redact_url(error.response.headers.get("location", ""))
            return f"{self.who} redirects to {target!r}, which is not followed; give judge_url the right address"
        if status == 404:
            return (
                f"{self.who} is not there (HTTP 404: {said}); check judge_model, and judge_url={self.url!r}, "
                "which usually ends in /v1"
            )
        if error.code == "insufficient_quota":
            return f"{self.who} has no credit left for this key (HTTP {status}: {said}); top it up, then run again"
        refusal = f"{self.who} refuses the question (HTTP {status}: {said})"
        if "logprob" in said.lower() and self._verdict == "logprobs":
            return f"{refusal}; set judge_verdict=parsed for an endpoint that gives no log-probabilities"
        if "system" in said.lower() or "alternate" in said.lower():
            return f"{refusal}; for a model without system messages give judge_template a file without a line [user]"
        return f"{refusal}; check the settings judge_model, judge_max_tokens, judge_verdict and judge_template"

    def _locate_key(self) -> str:
        if self._key:
            return f"check the one in {KEY}, or in {OPENAI_KEY} for OpenAI's own hosts"
        return f"set {KEY} in the environment ({OPENAI_KEY} is sent to OpenAI's own hosts alone)"

    def _quote_message(self, error: openai.APIStatusError) -> str:
        body = error.body
        message = body.get("message") if isinstance(body, dict) else None
        return self._quote_text(str(message or body or error.response.reason_phrase))

    def _quote_cause(self, error: openai.APIConnectionError) -> str:
        cause = error.__cause__
        return self._quote_text(str(cause or "") or type(cause or error).__name__)

    def _quote_text(self, text: str) -> str:
        """Return an endpoint's words in one short line."""
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:10_000]).split())
        return (line.replace(self._key, "***") if self._key else line)[:LONGEST_QUOTE]


def find_key(url: str) -> str:
    """Return the key for an address, or "" where there is none. `SettingsError` if OpenAI's own host lacks it.

    OPENAI_API_KEY is sent to OpenAI's own hosts only, whatever address the settings name.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_openai = parts.scheme == "https" and (host == "openai.com" or host.endswith(".openai.com"))
    name = KEY if os.environ.get(KEY, "").strip() or not is_openai else OPENAI_KEY
    key = read_bearer_secret(name)
    if is_openai and not key:
        raise SettingsError(f"judge_url={url!r}: needs a key; set {KEY} or {OPENAI_KEY} in the environment")
    return key


class _Token(BaseModel):
    token: str
    logprob: float


class _Position(BaseModel):
    top_logprobs: list[_Token] = []


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    """Of a chat completion, what a verdict needs: endpoints differ in the rest."""

    choices: list[_Choice]
    usage: _Usage | None = None


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _parse_reply(completion: _Completion, logprobs: bool) -> Reply:
    usage = completion.usage or _Usage()
    tokens = _check_count(usage.prompt_tokens), _check_count(usage.completion_tokens)
    if not completion.choices:
        return Reply(None, "", *tokens)
    choice = completion.choices[0]
    text = choice.message.refusal or choice.message.content or ""
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return Reply(None, text[:LONGEST_RAW] or "content_filter", *tokens)
    top = _read_top(choice.logprobs) if logprobs else []
    first_wins = read_logprobs(top) if top else read_text(text)
    return Reply(first_wins, _join_raw(text, top)[:LONGEST_RAW], *tokens)


def _read_top(logprobs: _Logprobs | None) -> list[tuple[str, float]]:
    positions = logprobs.content if logprobs is not None else None
    return [(token.token, token.logprob) for token in positions[0].top_logprobs] if positions else []


def _join_raw(text: str, top: Sequence[tuple[str, float]]) -> str:
    return " ".join([text, *(f"{token!r}:{logprob:.3f}" for token, logprob in top)])


def _check_count(tokens: int | None) -> int | None:
    return tokens if tokens is None or tokens >= 0 else None


def _concerns_this_question_alone(code: str | None, said: str) -> bool:
    words = said.lower()
    return (
        code in ("content_filter", "context_length_exceeded", "string_above_max_length")
        or "context length" in words
        or "maximum model length" in words
        or "content management policy" in words
    )
