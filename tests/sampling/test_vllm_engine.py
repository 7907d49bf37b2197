"""vLLM itself, on a tiny model of random weights that the test makes. Each engine lives in a process of its own."""

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, astuple
from itertools import product
from pathlib import Path

import pytest
from oatflow.components.errors import EngineError
from oatflow.components.prompts.template import encode_prompt, load_tokenizer
from oatflow.components.sampling.engine import Decoding, Draw, Request
from oatflow.components.sampling.settings import SamplingSettings
from oatflow.components.sampling.vllm_engine import engine_arguments
from oatflow.components.sampling.warm_engine import WARM_ENGINE, connect_engine, start_warm_engine

# bfloat16 on any machine: the policies that training writes are float32, and must fit all the same.
# The cache holds 4,096 tokens of the tiny model.
SETTINGS = SamplingSettings(dtype="bfloat16", max_model_len=512, cpu_kv_cache_gib=0.001)
SAMPLED, GREEDY = Decoding(1.0, 1.0, 24), Decoding(0.0, 1.0, 24)


@pytest.fixture(scope="module")
def start_folder(tmp_path_factory, make_model):
    return make_model(tmp_path_factory.mktemp("start"), 1, "bfloat16")


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory, make_model):
    return make_model(tmp_path_factory.mktemp("trained"), 2, "float32")


@pytest.fixture(scope="module")
def engine(start_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # Threads that wait for each other cost more than they gain on matrices this small.
        patch.setenv("OMP_NUM_THREADS", "1")
        started = start_warm_engine(SETTINGS, start_folder, "start", tmp_path_factory.mktemp("logs"))
        patch.setenv(WARM_ENGINE, started.environment()[WARM_ENGINE])
        yield connect_engine(SETTINGS)
        started.stop()


@pytest.fixture
def warm(engine, start_folder):
    engine.load_policy(start_folder, "start")
    return engine


@pytest.fixture(scope="module")
def requests(start_folder):
    tokenizer = load_tokenizer(start_folder)
    words = sorted(word for word in tokenizer.get_vocab() if not word.startswith("<"))
    texts = [" ".join(pair) for pair in list(product(words, words))[::20]]
    encoded = [tuple(encode_prompt(tokenizer, text, apply_chat_template=True)) for text in texts]
    return [Request(tokens, (2 * number, 2**63 - 1 - number)) for number, tokens in enumerate(encoded)]


def by_transformers(folder, answers):
    """Return the log-probability of each answer, computed naively in float64."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    found = []
    for prompt, tokens in answers:
        with torch.no_grad():
            logprobs = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
        found.append(sum(logprobs[place, token].item() for place, token in zip(places, tokens, strict=True)))
    return found


def cold(folder, requests, settings=SETTINGS):
    """Draw in a new process that finds no warm engine: sampled, then greedy."""
    program = """
import json, sys
from dataclasses import astuple
from pathlib import Path
from oatflow.components.sampling.engine import Decoding, Request, open_engine
from oatflow.components.sampling.settings import SamplingSettings
given = json.load(sys.stdin)
engine = open_engine(SamplingSettings.parse(given["settings"]), lambda: Path(given["folder"]), "new")
requests = [Request(tuple(tokens), tuple(seeds)) for tokens, seeds in given["requests"]]
drawn = [engine.generate(requests, Decoding(**decoding)) for decoding in given["decodings"]]
engine.close()
Path(given["answer"]).write_text(json.dumps([[[astuple(d) for d in group] for group in part] for part in drawn]))
"""
    answer = folder / "drawn.json"
    given = {
        "settings": settings.model_dump(),
        "folder": str(folder),
        "requests": [astuple(request) for request in requests],
        "decodings": [asdict(SAMPLED), asdict(GREEDY)],
        "answer": str(answer),
    }
    subprocess.run([sys.executable, "-c", program], input=json.dumps(given), text=True, check=True)
    read = json.loads(answer.read_text())
    return [[[Draw(tuple(t), text, why) for t, text, why in group] for group in part] for part in read]


@contextmanager
def serving(folder, directory, monkeypatch, trust_remote_code=False, settings=SETTINGS):
    """Give an engine of its own with that folder loaded; what it opens meanwhile finds no warm engine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = start_warm_engine(settings, folder, "own", directory / "logs", trust_remote_code)
    try:
        monkeypatch.setenv(WARM_ENGINE, started.environment()[WARM_ENGINE])
        engine = connect_engine(settings)
        monkeypatch.delenv(WARM_ENGINE)
        if engine is None:
            raise EngineError(started.address.read_log_end())
        yield engine
    finally:
        started.stop()


@pytest.mark.slow
def test_new_weights_in_a_warm_engine_answer_like_a_cold_engine_started_on_them(
    warm, trained_folder, requests, monkeypatch
):
    before = [warm.generate(requests, decoding) for decoding in (SAMPLED, GREEDY)]
    warm.load_policy(trained_folder, "trained")
    after = [warm.generate(requests, decoding) for decoding in (SAMPLED, GREEDY)]
    monkeypatch.delenv(WARM_ENGINE)
    assert after == cold(trained_folder, requests)
    assert all(old != new for old, new in zip(before[1], after[1], strict=True))


@pytest.mark.slow
def test_a_draw_is_the_same_in_any_company(warm, requests):
    for decoding in (SAMPLED, GREEDY):
        drawn = warm.generate(requests, decoding)
        assert warm.generate(requests, decoding) == drawn
        assert warm.generate(requests[::-1], decoding) == drawn[::-1]
        assert [warm.generate([request], decoding)[0] for request in requests[:5]] == drawn[:5]
        first_seeds = [Request(request.prompt_tokens, request.seeds[:1]) for request in requests]
        assert warm.generate(first_seeds, decoding) == [group[:1] for group in drawn]


@pytest.mark.slow
def test_seeds_matter_when_sampling_and_not_when_greedy(warm, requests):
    sampled, greedy = (warm.generate(requests, decoding) for decoding in (SAMPLED, GREEDY))
    assert sum(first == second for first, second in sampled) < len(sampled) / 4
    assert all(first == second for first, second in greedy)


@pytest.mark.slow
def test_tokens_end_with_the_sampled_end_of_sequence_and_the_text_does_not(warm, requests, start_folder):
    drawn = [draw for group in warm.generate(requests, SAMPLED) for draw in group]
    assert {draw.finish_reason for draw in drawn} == {"stop", "length"}
    words = load_tokenizer(start_folder).convert_ids_to_tokens
    for draw in drawn:
        ended = draw.finish_reason == "stop"
        assert (draw.tokens[-1] == 0) is ended and 0 not in draw.tokens[:-1]
        assert ended or len(draw.tokens) == SAMPLED.max_tokens
        kept = [word for word in words(list(draw.tokens)) if word not in ("<eos>", "<unk>")]
        assert draw.text.split() == kept and draw.text == draw.text.strip()


@pytest.mark.slow
def test_more_prompt_tokens_than_fit_into_one_batch_or_into_the_cache_do_no_harm(warm, requests):
    long = [Request((request.prompt_tokens * 200)[:480], request.seeds) for request in requests]
    assert sum(len(request.prompt_tokens) for request in long) > 3 * 4096
    told = []
    drawn = warm.generate(long, SAMPLED, lambda *facts: told.append(facts))
    assert warm.generate(long[-2:], SAMPLED) == drawn[-2:]
    tokens = sum(len(draw.tokens) for group in drawn for draw in group)
    assert told[-1] == (2 * len(long), 2 * len(long), tokens)
    assert told == sorted(told)


@pytest.mark.slow
def test_log_probabilities_are_those_of_transformers_whatever_policy_is_loaded(
    start_folder, trained_folder, requests, tmp_path, monkeypatch
):
    in_float32 = SamplingSettings(dtype="float32", max_model_len=512, cpu_kv_cache_gib=0.001)
    with serving(start_folder, tmp_path, monkeypatch, settings=in_float32) as engine:
        drawn = engine.generate(requests[:12], SAMPLED)
        answers = [
            (request.prompt_tokens, draw.tokens)
            for request, draws in zip(requests, drawn, strict=False)
            for draw in draws
        ]
        # One that fills the engine to the brim, and one of a single token.
        answers += [((5,) * 12, (6, 7) * 250), ((5, 6), (7,))]
        told = []
        for folder in (start_folder, trained_folder):
            engine.load_policy(folder, folder.name)
            scored = engine.logprobs(answers, lambda *facts: told.append(facts))
            assert scored == pytest.approx(by_transformers(folder, answers), abs=1e-3)
        assert told[-1] == (26, 26, sum(len(tokens) for _, tokens in answers))
        assert engine.generate(requests[:12], GREEDY) == cold(trained_folder, requests[:12], in_float32)[1]


@pytest.mark.slow
def test_a_prompt_without_room_for_an_answer_is_refused(warm):
    with pytest.raises(EngineError, match=r"max_model_len=512: a prompt has 512 tokens"):
        warm.generate([Request((5,) * 512, (0,))], SAMPLED)
    assert warm.generate([Request((5,) * 511, (0,))], SAMPLED)


@pytest.mark.slow
def test_a_folder_without_weights_is_refused_and_no_policy_is_loaded_then(warm, tmp_path, start_folder, requests):
    greedy = warm.generate(requests, GREEDY)
    with pytest.raises(EngineError, match=f"could not load the weights in {tmp_path}"):
        warm.load_policy(tmp_path, "nothing")
    assert warm.loaded() is None
    warm.load_policy(start_folder, "start")
    assert warm.generate(requests, GREEDY) == greedy


@pytest.mark.slow
def test_pickled_weights_answer_like_the_same_weights_in_safetensors_and_can_be_swapped_for_those(
    start_folder, trained_folder, requests, tmp_path, monkeypatch
):
    import torch
    from safetensors.torch import load_file

    pickled = shutil.copytree(start_folder, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with serving(pickled, tmp_path, monkeypatch) as engine:
        assert engine.generate(requests, GREEDY) == cold(start_folder, requests)[1]
        engine.load_policy(trained_folder, "trained")
        assert engine.generate(requests, GREEDY) == cold(trained_folder, requests)[1]


@pytest.mark.slow
def test_a_model_with_code_of_its_own_is_served_where_that_is_allowed_and_nowhere_else(
    start_folder, requests, tmp_path, monkeypatch
):
    own = shutil.copytree(start_folder, tmp_path / "own")
    ran = tmp_path / "ran"
    (own / "configuration_own.py").write_text(
        f"from pathlib import Path\nfrom transformers import LlamaConfig\n\nPath({str(ran)!r}).touch()\n\n\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (own / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with serving(own, tmp_path, monkeypatch, trust_remote_code=True) as engine:
        assert engine.generate(requests, GREEDY) == cold(start_folder, requests)[1]
    ran.unlink()
    with pytest.raises(EngineError, match="vLLM could not load"), serving(own, tmp_path, monkeypatch):
        pass
    assert not ran.exists()


def test_code_that_a_model_brings_along_is_run_only_where_that_is_said():
    told = [engine_arguments(SETTINGS, Path("model"), False, trusted) for trusted in (False, True)]
    assert [arguments["trust_remote_code"] for arguments in told] == [False, True]
    assert engine_arguments(SETTINGS, Path("model"), gpu=True)["trust_remote_code"] is False


def test_a_gpu_gets_its_share_of_memory_and_a_cpu_its_cache_in_bytes():
    settings = SamplingSettings(cpu_kv_cache_gib=0.5, gpu_memory_utilization=0.4, dtype="float32", max_model_len=99)
    on_cpu, on_gpu = (engine_arguments(settings, Path("model"), gpu) for gpu in (False, True))
    assert on_cpu["kv_cache_memory_bytes"] == 2**29 and on_cpu["enable_chunked_prefill"] is False
    assert on_gpu["gpu_memory_utilization"] == 0.4 and "enable_chunked_prefill" not in on_gpu
    for arguments in (on_cpu, on_gpu):
        assert (arguments["dtype"], arguments["max_model_len"], arguments["model"]) == ("float32", 99, "model")
