"""vLLM behind the engine's interface: the only module that imports it.

The engine runs in this very process. On a CPU its answers are the same bits in whatever company a request is served
(see `tests/sampling/test_vllm_engine.py`); on a GPU that takes vLLM's batch-invariant mode.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, fsum
from pathlib import Path
from typing import Any

from ..errors import EngineError
from ..number_format import number_format
from .engine import Answered, Decoding, Draw, ModelFolder, OnProgress, Request, ignore_progress, path_of
from .settings import SamplingSettings

# Set before vLLM is imported, unless the user has: in-process, quiet, and telling nobody. Threads that wait for each
# other sleep: spinning, an engine beside any other busy program crawls (seen on 2 cores: 2 tokens/s instead of 14).
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
CPU_BLOCK = 32  # tokens; the smallest that vLLM allows on a CPU, so that short prompts share what they have in common


@dataclass
class _Answer:
    """A response in the making."""

    request: Request
    seed: int
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None


class VllmEngine:
    """A vLLM engine in this process."""

    def __init__(self, settings: SamplingSettings, folder: Path, digest: str, trust_remote_code: bool = False):
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import EngineArgs, LLMEngine

        arguments = engine_arguments(settings, folder, _has_gpu(), trust_remote_code)
        if settings.dtype == "auto" and arguments["dtype"] == "float32":
            print("sampling: this machine computes faster in float32 than in bfloat16, so the engine does", flush=True)
        try:
            self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"vLLM could not load {folder}: {_describe_error(error)}") from error
        self._digest = digest
        self._names = map(str, itertools.count())

    def load_policy(self, folder: ModelFolder, digest: str) -> None:
        """Swap the weights in place: a fraction of a second instead of a cold start."""
        if digest == self._digest:
            return
        path = path_of(folder)
        # Whatever happens from here on, the old policy is no longer whole.
        self._digest = ""
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(path)})
            self._engine.reset_prefix_cache()
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"vLLM could not load the weights in {path}: {_describe_error(error)}") from error
        self._digest = digest

    def loaded(self) -> str | None:
        """Return the digest of the loaded policy."""
        return self._digest or None

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, on_progress: OnProgress = ignore_progress
    ) -> list[list[Draw]]:
        """Return for each request one draw a seed. The seeds of a prompt share its cached prefix."""
        answers = [[_Answer(request, seed) for seed in request.seeds] for request in requests]
        everything = [answer for group in answers for answer in group]
        self._check_lengths(requests)
        try:
            for done, tokens in self._answer_all(everything, decoding):
                on_progress(done, len(everything), tokens)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"vLLM failed while generating: {_describe_error(error)}") from error
        decode = self._engine.get_tokenizer().decode
        return [[_make_draw(answer, decode) for answer in group] for group in answers]

    def logprobs(self, answers: Sequence[Answered], on_progress: OnProgress = ignore_progress) -> list[float]:
        """Return the log-probability of each answer, as the model has it: no temperature, no top_p."""
        asked: dict[str, Answered] = {}
        found: dict[str, float] = {}
        done = 0
        try:
            for answer in answers:
                asked[self._submit_for_logprobs(*answer)] = answer
            while len(found) < len(asked):
                for output in self._engine.step():
                    prompt, tokens = asked[output.request_id]
                    found[output.request_id] = _sum_logprobs(output, prompt, tokens)
                    done += len(tokens)
                on_progress(len(found), len(asked), done)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"vLLM failed while scoring answers: {_describe_error(error)}") from error
        finally:
            self._engine.abort_request([name for name in asked if name not in found])
        return [found[name] for name in asked]

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.engine_core.shutdown()

    def _answer_all(self, answers: Sequence[_Answer], decoding: Decoding) -> Iterator[tuple[int, int]]:
        """Fill in the answers; yields after every step how many are done, and the tokens so far.

        Requests enter only while the longest possible answers of all those in flight fit into the cache: vLLM would
        else drop an answer half-way and compute it anew.
        """
        waiting, running = deque(answers), dict[str, _Answer]()
        room, done, tokens = self._cache_blocks(), 0, 0
        try:
            while waiting or running:
                while waiting and (not running or self._count_blocks(waiting[0], decoding) <= room):
                    room -= self._count_blocks(waiting[0], decoding)
                    answer = waiting.popleft()
                    running[self._submit_answer(answer, decoding)] = answer
                for output in self._engine.step():
                    (part,) = output.outputs
                    answer = running[output.request_id]
                    answer.tokens += part.token_ids
                    tokens += len(part.token_ids)
                    if output.finished:
                        answer.finish_reason = part.finish_reason
                        room += self._count_blocks(running.pop(output.request_id), decoding)
                        done += 1
                yield done, tokens
        finally:
            self._engine.abort_request(list(running))

    def _submit_answer(self, answer: _Answer, decoding: Decoding) -> str:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=decoding.temperature,
            top_p=decoding.top_p if decoding.temperature else 1.0,
            max_tokens=decoding.max_tokens,
            seed=answer.seed if decoding.temperature else None,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        name = next(self._names)
        self._engine.add_request(name, TokensPrompt(prompt_token_ids=list(answer.request.prompt_tokens)), params)
        return name

    def _submit_for_logprobs(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Let an answer's last token be drawn, being the only one allowed: the others are as good as a prompt.

        That way an answer fits that fills the model to the brim, and the log-probability is that from before the ban.
        """
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            allowed_token_ids=[tokens[-1]],
            logprobs=0,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        name = next(self._names)
        self._engine.add_request(name, TokensPrompt(prompt_token_ids=[*prompt, *tokens[:-1]]), params)
        return name

    def _count_blocks(self, answer: _Answer, decoding: Decoding) -> int:
        """How much of the cache a request may come to need."""
        tokens = len(answer.request.prompt_tokens) + decoding.max_tokens
        return ceil(tokens / int(self._cache.block_size))

    def _cache_blocks(self) -> int:
        return int(self._cache.num_gpu_blocks or 0)

    @property
    def _cache(self) -> Any:
        return self._engine.vllm_config.cache_config

    def _check_lengths(self, requests: Sequence[Request]) -> None:
        limit = self._engine.model_config.max_model_len
        longest = max((len(request.prompt_tokens) for request in requests), default=0)
        if longest >= limit:
            raise EngineError(
                f"sampling.max_model_len={limit}: a prompt has {longest} tokens, which leaves no room for an answer; "
                "allow more, or lower prompts.prompt_max_length"
            )


def engine_arguments(
    settings: SamplingSettings, folder: Path, gpu: bool, trust_remote_code: bool = False
) -> dict[str, Any]:
    """Say in vLLM's words what the settings mean on this kind of machine."""
    arguments = {
        "model": str(folder),
        "trust_remote_code": trust_remote_code,
        "dtype": number_format(settings.dtype, gpu),
        "max_model_len": settings.max_model_len,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if gpu:
        return arguments | {
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enforce_eager": settings.enforce_eager,
        }
    return arguments | {
        "kv_cache_memory_bytes": int(settings.cpu_kv_cache_gib * 2**30),
        "block_size": CPU_BLOCK,
        # Compiling takes a C++ compiler and minutes; these are machines for small models.
        "enforce_eager": True,
        # Splitting a prompt crashes vLLM's CPU sampler on seeded requests ("CPU Generator does not use offset").
        "enable_chunked_prefill": False,
    }


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _make_draw(answer: _Answer, decode: Any) -> Draw:
    text = decode(answer.tokens, skip_special_tokens=True).strip()
    return Draw(tuple(answer.tokens), text, answer.finish_reason or "abort")


def _sum_logprobs(output: Any, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Add up what an engine's output says of an answer's tokens: the last one was drawn, the others stand in front."""
    (drawn,) = output.outputs
    places = [*output.prompt_logprobs[len(prompt) :], *drawn.logprobs]
    return fsum(place[token].logprob for place, token in zip(places, tokens, strict=True))


def _describe_error(error: Exception) -> str:
    """Return the first line of vLLM's error, and what to change where the engine lacks memory."""
    line = (str(error).strip() or type(error).__name__).partition("\n")[0]
    # The engine's own process says why it died in the log alone; most often it found too little memory.
    if not re.search("memory|KV cache|engine core", line, re.IGNORECASE):
        return line
    return (
        f"{line.rstrip('.')}; if it lacks memory: raise resources.sampler_memory, lower sampling.max_model_len, or on "
        "a GPU change sampling.gpu_memory_utilization"
    )
