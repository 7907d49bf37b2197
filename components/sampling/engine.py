"""The interface of what generates, a scripted engine that needs no model, and how to open the right one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..prompts.template import WordTokenizer
from ..seeds import derive
from .settings import SamplingSettings


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and the seeds of the responses to draw for it: one response a seed."""

    prompt_tokens: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """One response. `tokens` end with the end-of-sequence token if it was sampled; `finish_reason`: stop or length."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to choose the next token, and how many at most. Temperature 0 is greedy, whatever the seed."""

    temperature: float
    top_p: float
    max_tokens: int


OnProgress = Callable[[int, int, int], None]
"""Called with the responses finished, the responses asked for, and the tokens generated so far."""
Answered = tuple[tuple[int, ...], tuple[int, ...]]
"""The tokens of a prompt, and those of an answer to it: one at least."""
ModelFolder = Path | Callable[[], Path]
"""A model's folder in Hugging Face layout, or how to get it: asked only where its weights are needed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy by the digest of its weights, and what fetches its folder: called only where the weights are needed."""

    digest: str
    fetch_folder: Callable[[], Path]


def ignore_progress(done: int, of: int, tokens: int) -> None:
    """Tell nobody."""


class Engine(Protocol):
    """Generates with one policy at a time. Every method may raise `EngineError`.

    A draw depends on the policy, the prompt, the seed and the decoding, and on nothing that it is generated beside.
    """

    def load_policy(self, folder: ModelFolder, digest: str) -> None:
        """Generate with these weights from now on; nothing happens if the policy of that digest is loaded."""
        ...

    def loaded(self) -> str | None:
        """Return the digest of the loaded policy."""
        ...

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress = ignore_progress
    ) -> list[list[Draw]]:
        """Return for each request one draw a seed, in their order."""
        ...

    def logprobs(self, answers: Sequence[Answered], on_progress: OnProgress = ignore_progress) -> list[float]:
        """Return the log-probability of each answer, the sum over its tokens, at temperature 1."""
        ...

    def close(self) -> None:
        """Let go of the engine."""
        ...


def open_engine(
    settings: SamplingSettings, folder: ModelFolder, digest: str, trust_remote_code: bool = False
) -> Engine:
    """Open the engine that the settings name, with a policy loaded: a warm one where there is one that fits.

    `trust_remote_code`: whether the code that the folder brings along may be run.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(digest)
    from .warm_engine import connect_engine

    engine = connect_engine(settings)
    if engine is None:
        from .vllm_engine import VllmEngine

        return VllmEngine(settings, path_of(folder), digest, trust_remote_code)
    engine.load_policy(folder, digest)
    return engine


def path_of(folder: ModelFolder) -> Path:
    """Return the folder, fetched now if it has to be."""
    return folder if isinstance(folder, Path) else folder()


_SUBJECTS = ("The place", "The thing", "It", "What I got", "The whole affair")
_FEELINGS = ("wonderful", "great", "pleasant", "fine", "ordinary", "dull", "disappointing", "awful", "horrible")
_ENDINGS = ("I would go again", "I expected more", "my friends love it", "I hate to say it", "nobody complained")
_USUAL = "It was okay, I suppose."


class ScriptedEngine:
    """Draws from a handful of sentences of every sentiment, often enough the same one twice.

    The draw is a pure function of prompt, seed and policy digest: what a real engine promises, without a model.
    """

    def __init__(self, digest: str, vocabulary: int | None = None):
        self._digest = digest
        self._tokenizer = WordTokenizer(vocabulary)

    def load_policy(self, folder: ModelFolder, digest: str) -> None:
        """Remember the digest; there are no weights."""
        self._digest = digest

    def loaded(self) -> str | None:
        """Return the digest that answers depend on."""
        return self._digest

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress = ignore_progress
    ) -> list[list[Draw]]:
        """Return for each request one draw a seed."""
        of, draws = sum(len(request.seeds) for request in requests), []
        for request in requests:
            draws.append([self._draw(request.prompt_tokens, seed, decoding) for seed in request.seeds])
            told = [draw for group in draws for draw in group]
            on_progress(len(told), of, sum(len(draw.tokens) for draw in told))
        return draws

    def logprobs(self, answers: Sequence[Answered], on_progress: OnProgress = ignore_progress) -> list[float]:
        """Return for each answer a number that depends on the policy, and is lower for longer ones."""
        on_progress(len(answers), len(answers), sum(len(tokens) for _, tokens in answers))
        return [-len(tokens) * self._surprise(prompt, tokens) for prompt, tokens in answers]

    def close(self) -> None:
        """Nothing to let go of."""

    def _surprise(self, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float:
        return (1 + derive(0, self._digest, *prompt, "answer", *tokens) % 1000) / 1000

    def _draw(self, prompt: tuple[int, ...], seed: int, decoding: Decoding) -> Draw:
        chance = derive(seed if decoding.temperature else 0, self._digest, *prompt)
        all_words = _make_sentence(chance).split()
        words = all_words[: decoding.max_tokens]
        text = " ".join(words)
        return Draw(tuple(self._tokenizer(text)["input_ids"]), text, "stop" if words == all_words else "length")


def _make_sentence(chance: int) -> str:
    """Choose by the digits of a number; one draw in three is the usual sentence."""
    chance, unusual = divmod(chance, 3)
    if not unusual:
        return _USUAL
    chosen = []
    for words in (_SUBJECTS, _FEELINGS, _FEELINGS, _ENDINGS):
        chance, index = divmod(chance, len(words))
        chosen.append(words[index])
    subject, first, second, ending = chosen
    return f"{subject} was {first} and {second}, and {ending}."
