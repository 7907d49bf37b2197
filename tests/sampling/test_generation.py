import json
from collections import Counter

import pytest
from oatflow.components.exploration.choice import choose_duels
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.progress import PROGRESS_FILE
from oatflow.components.prompts.template import WordTokenizer, encode_prompts
from oatflow.components.records.plan import Plan, PolicyPointer
from oatflow.components.records.records import Candidate, Duel, Prompt, duel_id
from oatflow.components.records.table import from_parquet, to_parquet
from oatflow.components.rounds.steps import run_sampling
from oatflow.components.sampling.engine import Decoding, Request, ScriptedEngine
from oatflow.components.sampling.generation import candidate_seeds, draw_answers, report_progress

PROMPTS = [Prompt(f"{number:06d}-x", f"Question {number} of many?") for number in range(40)]


@pytest.fixture
def begin(begin_ledger):
    """Begin an experiment whose plan for round 0 holds these prompts."""

    def begin(prompts=PROMPTS, name="experiment", seed=7, policy="start", source=None, exploration=None, **sampling):
        settings = {
            "prompts": source or {},
            "sampling": {"engine": "scripted", "generate_max_length": 8, **sampling},
            "exploration": exploration or {},
            "policy": {"trainer": "scripted"},
            "ledger": {"seed": seed},
        }
        plan = Plan(0, 1, tuple(prompts), *[PolicyPointer(-1, policy)] * 2, 0, 1000)
        return begin_ledger(name, settings, [plan])[0]

    return begin


def table(ledger, name, kind):
    return from_parquet(ledger.read_output("sampling", name, 0), kind, name)


def candidates(ledger):
    return table(ledger, "candidates.parquet", Candidate)


def duels(ledger):
    return table(ledger, "duels.parquet", Duel)


def test_every_prompt_gets_its_candidates_and_one_duel_of_the_first_two(begin):
    ledger = begin(num_samples=3)
    done = run_sampling(ledger, 0, "a")
    drawn = candidates(ledger)
    assert [(row.prompt_id, row.candidate) for row in drawn] == [(p.prompt_id, n) for p in PROMPTS for n in range(3)]
    text = {(row.prompt_id, row.candidate): row.response for row in drawn}
    for prompt, duel in zip(PROMPTS, duels(ledger), strict=True):
        assert {duel.first_candidate, duel.second_candidate} == {0, 1}
        assert duel.prompt_id == prompt.prompt_id and duel.prompt == prompt.text
        assert duel.first == text[prompt.prompt_id, duel.first_candidate]
        assert duel.second == text[prompt.prompt_id, duel.second_candidate]
        assert duel.clash is (duel.first == duel.second)
        assert duel.duel_id == duel_id(duel.prompt, duel.first, duel.second)
    assert done.counts == {
        "prompts": 40,
        "candidates": 120,
        "duels": 40,
        "clashes": sum(duel.clash for duel in duels(ledger)),
        "generated_tokens": sum(len(row.tokens) for row in drawn),
        "prompt_tokens": 4 * 40,
    }
    assert done.counts["clashes"] > 0 and {row.prompt_tokens for row in drawn} == {4}
    assert {row.finish_reason for row in drawn} == {"stop", "length"}
    assert set(done.timings) == {"startup", "generate", "work"} and min(done.timings.values()) >= 0


def test_the_place_in_a_duel_is_chance_and_carries_no_information(begin):
    ledger = begin([Prompt(f"{number:06d}", "Same question?") for number in range(400)])
    run_sampling(ledger, 0, "a")
    first = Counter(duel.first_candidate for duel in duels(ledger))
    assert abs(first[0] - 200) < 50  # five standard deviations


def test_the_same_experiment_gives_the_same_bytes_and_another_seed_or_policy_others(begin):
    def tables(name, **settings):
        ledger = begin(name=name, **settings)
        run_sampling(ledger, 0, "a")
        return ledger.read_output("sampling", "candidates.parquet", 0), ledger.read_output(
            "sampling", "duels.parquet", 0
        )

    first = tables("one")
    assert tables("two") == first
    for name, change in (("three", {"seed": 8}), ("four", {"policy": "trained"})):
        assert not set(tables(name, **change)) & set(first)


def test_candidates_do_not_depend_on_which_prompts_share_the_round(begin):
    all_together, one_alone = begin(name="all"), begin(PROMPTS[5:6], name="one")
    run_sampling(all_together, 0, "a")
    run_sampling(one_alone, 0, "a")
    assert candidates(one_alone) == candidates(all_together)[10:12]
    assert duels(one_alone) == duels(all_together)[5:6]


def test_seeds_differ_by_experiment_round_prompt_and_number_and_fit_vllm():
    seeds = [
        seed
        for experiment in (0, 1)
        for round_ in (0, 1)
        for prompt in ("p", "q")
        for seed in candidate_seeds(experiment, round_, prompt, 3)
    ]
    assert len(set(seeds)) == 24 and all(0 <= seed < 2**63 for seed in seeds)
    assert candidate_seeds(0, 0, "p", 2) == candidate_seeds(0, 0, "p", 3)[:2]


def test_candidates_that_a_killed_attempt_left_are_the_rounds_candidates(begin, monkeypatch):
    ledger = begin()
    left = [Candidate(p.prompt_id, n, f"left {n}", (1, 2), 9, "stop") for p in PROMPTS[:2] for n in range(2)]
    with pytest.raises(KeyboardInterrupt), ledger.open_step(0, "sampling", "a") as step:
        step.write_output("candidates.parquet", to_parquet(left, Candidate))
        raise KeyboardInterrupt
    monkeypatch.setattr(ScriptedEngine, "generate", lambda *_: pytest.fail("there is nothing left to generate"))
    done = run_sampling(ledger, 0, "a")
    assert [{duel.first, duel.second} for duel in duels(ledger)] == [{"left 0", "left 1"}] * 2
    assert done.counts["generated_tokens"] == 8 and done.counts["prompt_tokens"] == 18


def test_a_finished_step_is_adopted(begin):
    ledger = begin()
    assert run_sampling(ledger, 0, "a") == run_sampling(ledger, 0, "a")


def test_greedy_answers_are_one_a_prompt_and_seeded_by_purpose():
    tokens, engine = encode_prompts(WordTokenizer(), PROMPTS, True), ScriptedEngine("start")
    warm, greedy = Decoding(1.0, 1.0, 8), Decoding(0.0, 1.0, 8)
    given = draw_answers(engine, PROMPTS, tokens, warm, (7, 0, "evaluate"))
    assert given == draw_answers(engine, PROMPTS, tokens, warm, (7, 0, "evaluate"))
    assert given[::-1] == draw_answers(engine, PROMPTS[::-1], tokens[::-1], warm, (7, 0, "evaluate"))
    assert given != draw_answers(engine, PROMPTS, tokens, warm, (7, 1, "evaluate"))
    best = draw_answers(engine, PROMPTS, tokens, greedy, (7, 0, "evaluate"))
    assert best == draw_answers(engine, PROMPTS, tokens, greedy, (8, 1, "other"))
    assert len(best) == len(PROMPTS)


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress"))
    report = report_progress("sample", 3)
    for done in range(101):
        report(done, 100, 5 * done)
    told = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [(line["done"], line["of"], line["tokens"]) for line in told] == [(0, 100, 0), (100, 100, 500)]
    assert {(line["step"], line["round"], line["event"]) for line in told} == {("sample", 3, "work")}


def test_the_duels_of_a_plan_depend_on_the_round():
    plans = [Plan(round_, 2, tuple(PROMPTS), *[PolicyPointer(-1, "a")] * 2, 0, 9) for round_ in (0, 1)]
    drawn = [Candidate(p.prompt_id, n, f"answer {n}", (1,), 1, "stop") for p in PROMPTS for n in range(2)]
    first, second = (
        [duel.first for duel in choose_duels(plan.prompts, plan.round, drawn, ExplorationSettings(), 7).duels]
        for plan in plans
    )
    assert first != second


# Strategies that need more than the policy's draws.


def drawn_by(digest, number):
    """Return what a policy draws as the candidate of that number of each prompt."""
    requests = [
        Request(tokens, candidate_seeds(7, 0, prompt.prompt_id, 2)[number : number + 1])
        for prompt, tokens in zip(PROMPTS, encode_prompts(WordTokenizer(), PROMPTS, True), strict=True)
    ]
    return [draw for (draw,) in ScriptedEngine(digest).generate(requests, Decoding(1.0, 1.0, 8))]


def test_in_xpo_the_policys_answer_duels_the_starting_models(begin):
    ledger = begin(policy="trained", exploration={"exp_method": "XPO"})
    run_sampling(ledger, 0, "a")
    rows = candidates(ledger)
    assert [(row.response, row.tokens) for row in rows[::2]] == [
        (draw.text, draw.tokens) for draw in drawn_by("trained", 0)
    ]
    assert [(row.response, row.tokens) for row in rows[1::2]] == [
        (draw.text, draw.tokens) for draw in drawn_by("start", 1)
    ]
    assert [row.candidate for row in rows] == [0, 1] * len(PROMPTS)
    assert {duel.strategy for duel in duels(ledger)} == {"XPO"} and len(duels(ledger)) == len(PROMPTS)


def test_while_the_policy_is_the_starting_model_xpo_draws_as_passive_exploration_does(begin):
    xpo, passive = begin(name="xpo", exploration={"exp_method": "XPO"}), begin(name="passive")
    for ledger in (xpo, passive):
        run_sampling(ledger, 0, "a")
    assert candidates(xpo) == candidates(passive)


def test_in_apl_every_candidate_is_scored_under_the_policy_and_the_starting_model(begin):
    ledger = begin(policy="trained", exploration={"exp_method": "APL", "apl_keep": 7}, num_samples=3)
    done = run_sampling(ledger, 0, "a")
    rows = candidates(ledger)
    prompts = [tokens for tokens in encode_prompts(WordTokenizer(), PROMPTS, True) for _ in range(3)]
    answers = [(tokens, row.tokens) for tokens, row in zip(prompts, rows, strict=True)]
    assert [row.logprob for row in rows] == ScriptedEngine("trained").logprobs(answers)
    assert [row.reference_logprob for row in rows] == ScriptedEngine("start").logprobs(answers)
    assert done.counts["duels"] == 7 and {duel.strategy for duel in duels(ledger)} == {"APL"}
    means = {
        prompt.prompt_id: sum(row.logprob for row in rows if row.prompt_id == prompt.prompt_id) for prompt in PROMPTS
    }
    assert {duel.prompt_id for duel in duels(ledger)} == set(sorted(means, key=means.get)[-7:])


def test_a_policy_that_is_the_starting_model_is_scored_once(begin, monkeypatch):
    asked = []
    original = ScriptedEngine.logprobs
    monkeypatch.setattr(
        ScriptedEngine, "logprobs", lambda self, *of: asked.append(self.loaded()) or original(self, *of)
    )
    ledger = begin(exploration={"exp_method": "APL", "apl_certainty_only": True})
    run_sampling(ledger, 0, "a")
    assert asked == ["start"] and all(row.logprob == row.reference_logprob < 0 for row in candidates(ledger))
    assert len(duels(ledger)) == len(PROMPTS) // 2


def test_nobody_scores_candidates_for_another_strategy(begin):
    ledger = begin()
    run_sampling(ledger, 0, "a")
    assert {(row.logprob, row.reference_logprob) for row in candidates(ledger)} == {(None, None)}


# Offline: candidates out of a preference set.

OFFLINE = {"chosen_key": "chosen", "rejected_key": "rejected"}
SET = [
    Prompt("000000-a", "How was it?", chosen="Warm and kind.", rejected="Cold."),
    Prompt("000001-b", "And then?", chosen="One two three four five six seven eight nine.", rejected="No."),
    Prompt("000002-c", "At last?", chosen="The same.", rejected="The same."),
]


def test_offline_the_candidates_are_the_chosen_and_the_rejected_answer_of_the_set(begin):
    ledger = begin(SET, source=OFFLINE)
    done = run_sampling(ledger, 0, "a")
    rows = candidates(ledger)
    assert [(row.prompt_id, row.candidate, row.response) for row in rows] == [
        (prompt.prompt_id, number, text)
        for prompt in SET
        for number, text in enumerate((prompt.chosen, prompt.rejected))
    ]
    for prompt, duel in zip(SET, duels(ledger), strict=True):
        chosen_first = (prompt.chosen, prompt.rejected, 0, 1)
        rejected_first = (prompt.rejected, prompt.chosen, 1, 0)
        shown = (duel.first, duel.second, duel.first_candidate, duel.second_candidate)
        assert shown in (chosen_first, rejected_first)
    assert [duel.clash for duel in duels(ledger)] == [False, False, True]
    assert done.counts == {
        "prompts": 3, "candidates": 6, "duels": 3, "clashes": 1, "generated_tokens": 0, "prompt_tokens": 7,
    }  # fmt: skip


def test_offline_an_answer_ends_with_its_end_and_one_too_long_is_cut_without(begin):
    ledger = begin(SET, source=OFFLINE)
    run_sampling(ledger, 0, "a")
    rows = {(row.prompt_id, row.candidate): row for row in candidates(ledger)}
    whole, cut = rows["000000-a", 0], rows["000001-b", 0]
    assert (whole.finish_reason, len(whole.tokens), whole.tokens[-1]) == ("stop", 4, WordTokenizer.eos_token_id)
    assert (cut.finish_reason, len(cut.tokens)) == ("length", 8)
    assert cut.tokens[-1] == WordTokenizer()("eight")["input_ids"][0]


def test_offline_no_engine_is_opened(begin, monkeypatch):
    monkeypatch.setattr(ScriptedEngine, "__init__", lambda *_: pytest.fail("nothing is to be generated"))
    assert run_sampling(begin(SET, source=OFFLINE), 0, "a").counts["duels"] == 3


def test_offline_the_better_answer_comes_first_by_chance_alone(begin):
    prompts = [Prompt(f"{number:06d}", "Same?", chosen="Better.", rejected="Worse.") for number in range(400)]
    ledger = begin(prompts, source=OFFLINE)
    run_sampling(ledger, 0, "a")
    assert abs(sum(duel.first == "Better." for duel in duels(ledger)) - 200) < 50  # five standard deviations


def test_offline_the_same_experiment_gives_the_same_bytes(begin):
    def tables(name):
        ledger = begin(SET, name=name, source=OFFLINE)
        run_sampling(ledger, 0, "a")
        return [ledger.read_output("sampling", f"{table}.parquet", 0) for table in ("candidates", "duels")]

    assert tables("one") == tables("two")


def test_a_prompt_that_comes_twice_in_a_row_makes_two_duels(begin):
    ledger = begin([SET[0], SET[0], SET[1]], source=OFFLINE)
    assert run_sampling(ledger, 0, "a").counts["duels"] == 3
    assert [duel.prompt_id for duel in duels(ledger)] == ["000000-a", "000000-a", "000001-b"]
