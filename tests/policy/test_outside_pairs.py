"""Preferences made elsewhere are trained on beside a round's own."""

import json
from pathlib import Path

import pytest
from oatflow.components.policy.pairs import OUTSIDE, PairReader
from oatflow.components.prompts.template import load_tokenizer
from oatflow.components.rounds.experiment import ExperimentSettings


@pytest.fixture
def trial(new_trial, tmp_path):
    """An experiment with three preferences from outside in each round; of the last of four, both answers are equal."""
    file = tmp_path / "elsewhere.jsonl"
    rows = [
        ("very good tea", "bad tea"),
        ("good song", "bad song"),
        ("good hat is good", "it was bad"),
        ("fine", "fine"),
    ]
    file.write_text("".join(
        json.dumps({"prompt": f"say something about it {number}", "chosen": chosen, "rejected": rejected}) + "\n"
        for number, (chosen, rejected) in enumerate(rows)
    ))  # fmt: skip
    trial = new_trial(max_epochs=1)
    trial.settings["outside"] |= {"outside_preferences": str(file), "outside_batch_size": 4}
    trial.settings["sampling"]["generate_max_length"] = 3
    ExperimentSettings.parse(trial.settings)
    trial.open(0)
    return trial


def test_they_are_read_as_answers_of_the_experiment_and_cut_like_them(trial):
    tokenizer = load_tokenizer(Path(trial.policy().pretrain))
    ledger = trial.ledger
    reader = PairReader(ledger, lambda round_: ledger.read_plan(round_).prompts, trial.policy(), tokenizer, False, 64)
    by_prompt = {pair.duel_id: pair for pair in reader.make_outside_pairs(ledger.read_plan(0).outside, 3)}
    assert len(by_prompt) == 4 and all(name.startswith(OUTSIDE) for name in by_prompt)
    texts = {(tokenizer.decode(pair.chosen), tokenizer.decode(pair.rejected)) for pair in by_prompt.values()}
    assert texts == {
        ("very good tea", "bad tea <end>"), ("good song <end>", "bad song <end>"), ("good hat is", "it was bad"),
        ("fine <end>", "fine <end>"),
    }  # fmt: skip
    assert not any(pair.duel_id.startswith(OUTSIDE) for pairs in reader.read_buffer(0).values() for pair in pairs)


@pytest.mark.slow
def test_the_loss_sees_them_and_no_query_pays_for_them(trial):
    done = trial.train(0)
    # Six prompts, one a clash; four from outside, one of equal answers; steps of four pairs.
    assert done.counts["outside_pairs"] == 3
    assert done.counts["pairs"] == 5 + 3 and done.counts["steps_this_round"] == 2
    assert done.counts["identical"] == 1 and len(done.facts["curve"]) == 2
    trial.close(0)
    trial.open(1)
    assert trial.ledger.read_plan(1).queries_spent == trial.ledger.find_done(0, "labeling").counts["queries"]
