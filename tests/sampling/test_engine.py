from collections import Counter
from pathlib import Path

import pytest
from oatflow.components.sampling.engine import Decoding, Request, ScriptedEngine, open_engine
from oatflow.components.sampling.settings import SamplingSettings

WARM, GREEDY = Decoding(1.0, 1.0, 48), Decoding(0.0, 1.0, 48)


def asks(prompts, seeds):
    return [Request((number,), tuple(range(seeds))) for number in range(prompts)]


def texts(drawn):
    return [[draw.text for draw in group] for group in drawn]


def test_a_draw_depends_on_prompt_seed_and_policy_and_on_nothing_beside_it():
    engine = ScriptedEngine("a")
    together = engine.generate(asks(20, 3), WARM)
    alone = [engine.generate([request], WARM)[0] for request in asks(20, 3)]
    assert together == alone
    for other in ([Request((0,), (7, 8, 9))], [Request((5,), (0, 1, 2))]):
        assert texts(engine.generate(other, WARM))[0] != texts(together)[0]
    assert texts(ScriptedEngine("b").generate(asks(20, 3), WARM)) != texts(together)


def test_greedy_answers_do_not_depend_on_the_seed():
    engine = ScriptedEngine("a")
    assert all(len(set(group)) == 1 for group in engine.generate(asks(20, 3), GREEDY))


def test_answers_vary_and_sometimes_clash():
    drawn = texts(ScriptedEngine("a").generate(asks(500, 2), WARM))
    assert len({text for group in drawn for text in group}) > 200
    clashes = sum(first == second for first, second in drawn)
    assert 25 < clashes < 90  # one draw in three is the usual sentence: 56 expected


def test_an_answer_cut_off_says_so():
    (group,) = ScriptedEngine("a").generate([Request((1,), tuple(range(50)))], Decoding(1.0, 1.0, 5))
    reasons = Counter(draw.finish_reason for draw in group)
    assert set(reasons) == {"stop", "length"}
    for draw in group:
        assert len(draw.tokens) == len(draw.text.split()) == 5
        assert draw.text.endswith(".") == (draw.finish_reason == "stop")


def test_progress_counts_answers_and_tokens():
    told = []
    drawn = ScriptedEngine("a").generate(asks(3, 2), WARM, lambda *facts: told.append(facts))
    tokens = [sum(len(draw.tokens) for draw in group) for group in drawn]
    assert told == [(2, 6, tokens[0]), (4, 6, sum(tokens[:2])), (6, 6, sum(tokens))]


def test_log_probabilities_are_negative_and_depend_on_policy_prompt_and_answer_alone():
    told, answers = [], [((1, 2), (3,)), ((1,), (2, 3)), ((1,), (2, 3, 4)), ((1,), (2, 3))]
    scored = ScriptedEngine("a").logprobs(answers, lambda *facts: told.append(facts))
    assert max(scored) < 0 and scored[1] == scored[3] and len(set(scored)) == 3
    assert scored[::-1] == ScriptedEngine("a").logprobs(answers[::-1])
    assert scored != ScriptedEngine("b").logprobs(answers)
    assert told[-1] == (4, 4, 8) and ScriptedEngine("a").logprobs([]) == []


def test_the_scripted_engine_never_asks_for_weights():
    def weights() -> Path:
        pytest.fail("a scripted policy has no weights")

    engine = open_engine(SamplingSettings(engine="scripted"), weights, "a")
    assert engine.loaded() == "a"
    engine.load_policy(weights, "b")
    assert engine.loaded() == "b"
    assert engine.generate([], WARM) == []
