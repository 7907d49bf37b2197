"""Settings of the oracles: one section for each that needs some."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from ..settings import Section, operational_field
from .known_reward import check_reward


class SimulatedSettings(Section):
    """An oracle whose reward is known."""

    reward: str = "vader"
    """Known reward of the simulated oracle: vader (sentiment in [-1, 1]), length (words over 100), or a Python function
    of your own, module:function, called with prompt and response."""
    reward_temperature: float = Field(0.1, gt=0)
    """Bradley-Terry temperature of the simulated oracle: P(first wins) = sigmoid((r1 - r2) / temperature)."""

    @field_validator("reward")
    @classmethod
    def _known_reward(cls, value: str) -> str:
        return check_reward(value)


class PairRMSettings(Section):
    """PairRM (arXiv 2306.02561), by llm-blender: compares both responses in one pass, in both orders."""

    pairrm_model: str = "llm-blender/PairRM-hf"
    """The ranker: a folder, a hub name, or s3://bucket/folder (on the ledger's server, unless it ends in \
?endpoint=URL)."""
    pairrm_batch_size: int = operational_field(8, ge=1)
    """Comparisons in one pass of the network."""


class ScorerSettings(Section):
    """A reward model of transformers in the step's own container: any sequence classification model with one output."""

    scorer_model: str = ""
    """The reward model: a folder, a hub name such as Skywork/Skywork-Reward-V2-Llama-3.1-8B, or s3://bucket/folder \
(on the ledger's server, unless it ends in ?endpoint=URL)."""
    scorer_temperature: float = Field(1.0, gt=0)
    """P(first wins) = sigmoid((score of the first - score of the second) / temperature)."""
    scorer_max_length: int = Field(4096, ge=8)
    """Longest conversation in tokens; a longer one is cut at its beginning, so that the end of the answer is read."""
    scorer_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights."""
    scorer_batch_tokens: int = operational_field(8192, ge=1)
    """Tokens in one pass, padding included; conversations of like length go together."""
    scorer_trust_remote_code: bool = False
    """Let the model bring code along."""


class RemoteSettings(Section):
    """A reward service over HTTP: ours (`oatflow serve-reward-model`), or one that speaks Oat's protocol."""

    remote_url: str = ""
    """Address of the service, http://host:port; its token comes from the environment, OATFLOW_ORACLE_TOKEN."""
    remote_protocol: Literal["json", "oat"] = "json"
    """json: ours; oat: Oat's msgpack over /get_feedback, for services that exist."""
    remote_allowed_hosts: tuple[str, ...] = operational_field(())
    """Hosts that the address may name; empty: any."""
    remote_request_duels: int = operational_field(4, ge=1)
    """Duels in one request."""
    remote_concurrency: int = operational_field(16, ge=1)
    """Requests at a time."""
    remote_timeout: float = operational_field(30.0, gt=0)
    """Seconds that an answer may take."""
    remote_tries: int = operational_field(10, ge=1)
    """How often a request is sent before its failures count as the service being down."""
    remote_backoff: Literal["jitter", "oat"] = operational_field("jitter")
    """Pauses between tries: jitter: doubling, with jitter, 30 s at most; oat: 1, 1.3, 1.69 s and so on."""
    remote_patience: float = operational_field(3600.0, ge=0)
    """Seconds that the service may be down before the step stops; until then it waits, and asks now and then."""


class JudgeSettings(Section):
    """An LLM as judge, behind any OpenAI-compatible endpoint; its key is in OATFLOW_JUDGE_KEY.

    OPENAI_API_KEY is sent to OpenAI's own hosts alone.
    """

    judge_model: str = ""
    """Name of the model at the endpoint."""
    judge_url: str = "https://api.openai.com/v1"
    """Address of the endpoint."""
    judge_allowed_hosts: tuple[str, ...] = operational_field(())
    """Hosts that the address may name; empty: any."""
    judge_orders: Literal["both", "one"] = "both"
    """both: each duel is asked in both orders and averaged; one: in an order drawn for the duel, at half the cost."""
    judge_verdict: Literal["logprobs", "parsed"] = "logprobs"
    """logprobs: read the probabilities of the two options, and parse the text where the endpoint gives none; parsed:
    parse the text only."""
    judge_template: str = ""
    """What the judge is told, a file or its text, with {rubric}, {prompt}, {first} and {second}; empty: ours."""
    judge_rubric: str = ""
    """What makes an answer better, a file or its text; empty: ours."""
    judge_max_tokens: int = Field(1, ge=1)
    """Tokens that the verdict may take; more than 1 only for parsed verdicts."""
    judge_concurrency: int = operational_field(8, ge=1)
    """Requests at a time."""
    judge_timeout: float = operational_field(60.0, gt=0)
    """Seconds that an answer may take."""
    judge_tries: int = operational_field(6, ge=1)
    """How often a request is sent before its failures count as the endpoint being down."""
    judge_patience: float = operational_field(3600.0, ge=0)
    """Seconds that the endpoint may be down before the step stops."""
    judge_input_price: float = operational_field(0.0, ge=0)
    """Price of a million input tokens."""
    judge_output_price: float = operational_field(0.0, ge=0)
    """Price of a million output tokens."""
    judge_spending_limit: float | None = operational_field(None, gt=0)
    """Most that the experiment may spend on the judge, in the currency of the prices; empty: no limit."""


class HumanSettings(Section):
    """People as the oracle: duels go out as a page and as tables, answers come back with `oatflow label`."""

    human_annotators: int = Field(1, ge=1)
    """How many people must answer each duel."""
    human_guideline: str = "Which answer is better?"
    """What people are asked."""
    human_wait_minutes: float = operational_field(0.0, ge=0, le=1200)
    """How long the step waits for their answers; then the run ends as waiting for labels, and the next carries on."""
