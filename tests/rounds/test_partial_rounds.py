"""Whatever a step leaves behind, the next one can go on from it: two more rounds follow each partial round."""

from dataclasses import dataclass, field

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.oracles.oracle import Answer, SpendingLimit
from oatflow.components.oracles.spending import Spending
from oatflow.components.rounds import tools
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather

PER_ROUND = 6
ANSWERS = {
    "unreadable": Answer(None, raw="I cannot say."),
    "lost": Answer(None, lost=True),
    "undecided": Answer(0.5, undecided=True),
    "decided": Answer(0.9),
}


@dataclass
class OracleDouble:
    """Answers each duel as `kind` says; `unpaid`: its money is spent before the first question."""

    kind: str
    identity: str = "double"
    known_reward: None = None
    paid: bool = False
    spending: Spending | None = field(default_factory=lambda: Spending(1000.0))

    def check_ready(self):
        pass

    def compare_duels(self, duels):
        if self.kind == "unpaid":
            raise SpendingLimit("nothing is left to spend")
        return [ANSWERS[self.kind]] * len(duels)


def settings(strategy):
    flags = {
        "rollout_batch_size": str(PER_ROUND), "max_queries": str(3 * PER_ROUND), "max_eval": "4", "max_train": "24",
        "exp_method": strategy, "unreadable_limit": "1",
    }  # fmt: skip
    if strategy != "passive":
        flags |= {"num_ensemble": "3", "num_samples": "4"}
    wanted = gather("scripted", None, flags).model_dump(mode="json")
    for name in ("lost_limit", "accepted_alarms"):
        if name in wanted["labeling"]:
            wanted["labeling"][name] = 1
    return wanted


@pytest.fixture(params=["passive", pytest.param("EnnBAITS", marks=pytest.mark.slow)])
def strategy(request):
    return request.param


@pytest.fixture
def play(tmp_path, monkeypatch, strategy):
    """Play one round: the oracle answers as is said to the step that is named, and decides every other duel."""
    uri, wanted = f"file://{tmp_path}/experiment", settings(strategy)

    def play(round_, step="", kind="decided", runs=run_sampling):
        assert open_round(uri, wanted, "run") == round_
        fits = (run_fit,) if strategy != "passive" else ()
        for run in (runs, run_labeling, run_train, *fits, run_evaluation):
            here = kind if run.__name__ == step else "decided"
            monkeypatch.setattr(tools, "open_oracle", lambda *_, here=here: OracleDouble(here))
            run(Ledger.open(uri), round_, "run")
        close_round(uri, round_, "run")
        return Ledger.open(uri)

    return play


@pytest.mark.parametrize("step", ["run_labeling", "run_evaluation"])
@pytest.mark.parametrize("kind", ["unreadable", "lost", "undecided", "unpaid"])
@pytest.mark.parametrize("bad", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_two_rounds_follow_a_round_whose_answers_are_missing(play, step, kind, bad):
    for round_ in range(bad):
        play(round_)
    play(bad, step, kind)
    for round_ in range(bad + 1, 3):
        ledger = play(round_)
        assert ledger.find_done(round_, "labeling").counts["queries"] > 0
        assert ledger.find_done(round_, "evaluation").facts["win_rate"] is not None
    assert list(ledger.verify_objects())


@pytest.mark.parametrize("bad", [0, 1])
def test_two_rounds_follow_a_round_of_clashes_alone(play, monkeypatch, bad):
    from oatflow.components.sampling.engine import ScriptedEngine

    for round_ in range(bad):
        play(round_)
    draw = ScriptedEngine.generate
    with monkeypatch.context() as same:

        def repeat(engine, requests, *more):
            return [[draws[0]] * len(draws) for draws in draw(engine, requests, *more)]

        same.setattr(ScriptedEngine, "generate", repeat)
        ledger = play(bad)
    assert ledger.find_done(bad, "labeling").counts["queries"] == 0
    for round_ in (bad + 1, bad + 2):
        ledger = play(round_) if round_ < 3 else ledger
    assert list(ledger.verify_objects())


def test_held_out_prompts_without_a_verdict_are_counted(play):
    ledger = play(0, "run_evaluation", "unreadable")
    counts = ledger.find_done(0, "evaluation").counts
    assert 0 < counts["without_verdict"] == 4 - counts["prompts"]  # equal answers are a tie, and nobody is asked
    # An answer that could not be read is not asked for again where the policy says the same again.
    after = play(1).find_done(1, "evaluation").counts
    assert after.get("without_verdict", 0) <= after.get("evaluation_reused", 0)
