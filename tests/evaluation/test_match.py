import pytest
from oatflow.components.errors import ClaimLost
from oatflow.components.ledger.step import Step
from oatflow.components.records.records import HeldOutAnswer
from oatflow.components.sampling.engine import ScriptedEngine
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.fixture
def generated(monkeypatch):
    """Note who generates: the digest of the policy, once for every call of the engine."""
    calls, generate = [], ScriptedEngine.generate

    def noted(engine, *args):
        calls.append(engine.loaded())
        return generate(engine, *args)

    monkeypatch.setattr(ScriptedEngine, "generate", noted)
    return calls


def die_at_write(monkeypatch, number):
    write, names = Step.write_output, []

    def dying(step, name, data):
        names.append(name)
        if len(names) == number:
            raise Killed
        return write(step, name, data)

    monkeypatch.setattr(Step, "write_output", dying)


def test_every_held_out_prompt_gets_a_verdict_by_the_known_reward(begin):
    rounds = begin(labeling={"reward_temperature": 0.5})
    done = rounds.evaluate(0)
    rows = rounds.verdicts(0)
    assert [row.prompt_id for row in rows] == [f"prompt-{n}" for n in range(20)]
    score = SentimentIntensityAnalyzer().polarity_scores
    for row in rows:
        ours, theirs = score(row.response)["compound"], score(row.opponent_response)["compound"]
        if row.response != row.opponent_response:
            assert (row.reward, row.opponent_reward) == (ours, theirs)
        assert (row.policy_wins > 0.5) == (ours > theirs)
        assert (row.policy_wins == 0.5) == (ours == theirs)
        assert row.response_tokens == len(row.response.split())
    wins, ties = sum(row.policy_wins > 0.5 for row in rows), sum(row.policy_wins == 0.5 for row in rows)
    asked = [row for row in rows if row.reward is not None]
    assert done.counts == {
        "prompts": 20,
        "wins": wins,
        "ties": ties,
        "evaluation_queries": len(asked),
        "generated_tokens": sum(row.response_tokens + row.opponent_tokens for row in rows),
    }
    assert done.facts["win_rate"] == (wins + ties / 2) / 20
    assert done.facts["mean_probability"] == pytest.approx(sum(row.policy_wins for row in rows) / 20)
    assert done.facts["low"] <= done.facts["win_rate"] <= done.facts["high"]
    assert done.facts["mean_reward"] == pytest.approx(sum(row.reward for row in asked) / len(asked))
    assert done.facts["oracle"] == "simulated/vader-3.3.2/T=0.5"
    assert set(done.timings) == {"startup", "generate", "judge", "work"}


def test_equal_answers_are_ties_that_nobody_is_asked_about(begin):
    rounds = begin()
    done = rounds.evaluate(0)
    equal = [row for row in rounds.verdicts(0) if row.response == row.opponent_response]
    assert equal, "the scripted engine says the usual sentence now and then"
    assert {(row.policy_wins, row.reward) for row in equal} == {(0.5, None)}
    assert len(rounds.asked()) == done.counts["evaluation_queries"] == 20 - len(equal)


def test_the_starting_model_answers_once_in_an_experiment(begin, generated):
    rounds = begin()
    done = [rounds.evaluate(round_) for round_ in range(3)]
    digests = [rounds.ledger.policy_digest(round_) for round_ in range(3)]
    assert generated == ["start", *digests]
    said = [[(row.opponent_response, row.opponent_tokens) for row in rounds.verdicts(round_)] for round_ in range(3)]
    assert said[0] == said[1] == said[2]
    assert done[1].counts["generated_tokens"] == sum(row.response_tokens for row in rounds.verdicts(1))


def test_a_policy_that_stayed_as_it_was_is_not_judged_again(begin):
    rounds = begin(weights=("same", "same", "other"))
    first = rounds.evaluate(0)
    asked = rounds.asked()
    second = rounds.evaluate(1)
    assert second.counts["evaluation_queries"] == 0
    assert rounds.asked() == asked
    assert rounds.verdicts(1) == rounds.verdicts(0)
    assert second.facts["win_rate"] == first.facts["win_rate"]
    assert rounds.evaluate(2).counts["evaluation_queries"] > 0
    assert len(set(rounds.asked())) == len(rounds.asked())


def test_a_policy_equal_to_its_opponent_wins_half_and_costs_nothing(begin, monkeypatch):
    monkeypatch.setattr(ScriptedEngine, "load_policy", lambda *_: None)
    rounds = begin()
    done = rounds.evaluate(0)
    assert done.facts["win_rate"] == 0.5
    # Twenty ties do not prove that both are equally good.
    assert (done.facts["low"], done.facts["high"]) == pytest.approx((0.4194, 0.5806), abs=1e-4)
    assert done.counts["evaluation_queries"] == 0
    assert done.facts["mean_reward"] is None
    assert rounds.asked() == []


def test_the_reference_column_can_be_the_opponent(begin, generated):
    rounds = begin(opponent="reference")
    rounds.evaluate(0)
    assert generated == [rounds.ledger.policy_digest(0)]
    rows = rounds.verdicts(0)
    assert [row.opponent_response for row in rows] == [f"Number {n} is good." for n in range(20)]
    assert {row.opponent_tokens for row in rows} == {4}


def test_rounds_between_measurements_report_nothing_and_generate_nothing(begin, generated):
    rounds = begin(weights=("a", "b", "c", "d", "e"), prompts=6, eval_every=2)
    done = [rounds.evaluate(round_) for round_ in range(5)]
    assert [mark.counts["prompts"] for mark in done] == [0, 6, 0, 6, 6]
    assert done[0].facts == done[2].facts == {}
    assert rounds.verdicts(0) == []
    digests = [rounds.ledger.policy_digest(round_) for round_ in range(5)]
    assert generated == ["start", digests[1], digests[3], digests[4]]
    assert [row.opponent_response for row in rounds.verdicts(4)] == [
        row.opponent_response for row in rounds.verdicts(1)
    ]


def test_where_the_win_rate_is_never_measured_nobody_answers_and_nobody_is_asked(begin, generated):
    rounds = begin(weights=("a", "b"), eval_every=0)
    done = [rounds.evaluate(round_) for round_ in range(2)]
    assert [mark.counts for mark in done] == [{"prompts": 0}] * 2
    assert [mark.facts for mark in done] == [{}] * 2
    assert generated == rounds.asked() == rounds.verdicts(1) == []


def test_the_judge_hears_the_policy_first_about_half_of_the_time(begin):
    rounds = begin(prompts=150, labeling={"oracle_batch_size": 64})
    rounds.evaluate(0)
    judged = {row.prompt_id: row for row in rounds.judgements(0)}
    different = [row for row in rounds.verdicts(0) if row.reward != row.opponent_reward]
    first = sum(judged[row.prompt_id].first_reward == row.reward for row in different)
    assert 0.35 < first / len(different) < 0.65


@pytest.mark.parametrize("death", [1, 4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 6, 9))])
def test_killed_at_any_write_the_verdicts_are_the_bytes_of_a_run_that_never_was(begin, monkeypatch, death):
    whole = begin(name="whole")
    whole.evaluate(0)
    rounds = begin(name="killed")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at_write(patch, death)
        rounds.evaluate(0)
    assert len(rounds.objects(0)) == death - 1
    done = rounds.evaluate(0)
    assert rounds.objects(0) == whole.objects(0)
    there = whole.ledger.find_done(0, "evaluation")
    assert (done.counts, done.facts) == (there.counts, there.facts)


def test_what_is_written_is_neither_generated_nor_judged_again(begin, monkeypatch, generated):
    rounds = begin()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        die_at_write(patch, 9)  # two tables of answers, three parts of receipts and of judgements, then the verdicts
        rounds.evaluate(0)
    assert len(generated) == 2
    asked = rounds.asked()
    rounds.evaluate(0)
    assert len(generated) == 2
    assert rounds.asked() == asked


def test_evaluating_again_adopts_the_mark(begin, generated):
    rounds = begin()
    done = rounds.evaluate(0)
    before = list(generated)
    assert rounds.evaluate(0) == done
    assert generated == before


def test_nobody_without_the_claim_measures(begin, generated):
    with pytest.raises(ClaimLost):
        begin().evaluate(0, run="b")
    assert generated == []


def test_answers_are_kept_beside_the_verdicts(begin):
    rounds = begin()
    rounds.evaluate(0)
    answers = rounds.table(0, "answers.parquet", HeldOutAnswer)
    assert [row.response for row in answers] == [row.response for row in rounds.verdicts(0)]
    opponent = rounds.table(0, "opponent.parquet", HeldOutAnswer)
    assert [row.response for row in opponent] == [row.opponent_response for row in rounds.verdicts(0)]


def test_one_held_out_prompt_is_enough(begin):
    done = begin(prompts=1).evaluate(0)
    assert done.counts["prompts"] == 1
    assert done.facts["low"] <= done.facts["win_rate"] <= done.facts["high"]
