"""What the settings of training change, and what they must not change: real DeepSpeed on the tiny model."""

import json
import math
from statistics import fmean

import pytest
from oatflow.components.errors import SettingsError, TrainingFailed
from oatflow.components.ledger import layout
from oatflow.components.records.records import ReferenceScore
from oatflow.components.records.tables import REFERENCE_SCORES

pytestmark = pytest.mark.slow


def curve(done, *names):
    return [tuple(point[name] for name in names) for point in done.facts["curve"]]


def trained(new_trial, rounds=1, **policy):
    """Return an experiment after some rounds."""
    trial = new_trial(**policy)
    for round_ in range(rounds):
        trial.open(round_)
        trial.train(round_)
        trial.close(round_)
    return trial


def losses_of(trial, rounds):
    return [loss for round_ in range(rounds) for (loss,) in curve(trial.ledger.find_done(round_, "policy"), "loss")]


@pytest.fixture(scope="module")
def plain(new_trial):
    return trained(new_trial, rounds=2)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient_checkpointing": True},
        {"adam_offload": True, "zero_stage": 2},
        {"train_workers": 4, "zero_stage": 2},
        {"train_batch_size_per_device": 2},
    ],
    ids=lambda options: "-".join(options),
)
def test_how_it_is_computed_does_not_change_what_is_learned(new_trial, plain, options):
    trial = trained(new_trial, rounds=2, **options)
    assert losses_of(trial, 2) == pytest.approx(losses_of(plain, 2), abs=1e-5)


# Every loss of the first step, at which policy and reference are one: log 2, (0 - 1 / (2 beta))^2, 1 - beta 0.
@pytest.mark.parametrize(
    ("algo", "rate", "first"),
    [("dpo", 5e-3, math.log(2)), ("lr_dpo", 5e-3, math.log(2)), ("ipo", 1e-3, 1.0), ("slic", 5e-3, 1.0)],
)
def test_a_loss_begins_at_its_value_for_margin_zero_and_falls(new_trial, algo, rate, first):
    losses = losses_of(trained(new_trial, dap_algo=algo, learning_rate=rate, max_epochs=4), 1)
    assert losses[0] == pytest.approx(first, abs=1e-5)
    assert losses[-1] < losses[0]


def test_simpo_asks_no_reference_and_its_loss_falls(new_trial):
    trial = trained(new_trial, dap_algo="simpo", beta=2.0, max_epochs=4)
    losses = losses_of(trial, 1)
    assert losses[-1] < losses[0]
    assert trial.ledger.find_done(0, "policy").find_output(REFERENCE_SCORES.name) is None


def test_bnf_learns_to_prefer_the_chosen_completions(new_trial):
    trial = trained(new_trial, dap_algo="bnf", beta=0.1, max_epochs=6)
    points = curve(trial.ledger.find_done(0, "policy"), "loss", "reward_margin")
    assert points[0][1] == pytest.approx(0, abs=1e-5) and points[-1][1] > 0.1
    assert points[-1][0] < points[0][0]


def test_no_more_steps_are_taken_in_a_round_than_allowed(new_trial):
    done = trained(new_trial, max_epochs=3, max_sgd_steps=4).ledger.find_done(0, "policy")
    assert (done.counts["steps_this_round"], len(done.facts["curve"])) == (4, 4)


def test_oats_mean_counts_the_clash_and_ours_does_not(new_trial, plain):
    ours = plain.ledger.find_done(0, "policy")
    oats = trained(new_trial, loss_reduction="all", train_batch_size=6).ledger.find_done(0, "policy")
    whole = trained(new_trial, train_batch_size=6).ledger.find_done(0, "policy")
    assert curve(whole, "loss")[0][0] == pytest.approx(math.log(2), abs=1e-6)
    assert curve(oats, "loss")[0][0] == pytest.approx(math.log(2) * 5 / 6, abs=1e-6)
    assert curve(oats, "grad_norm")[0][0] == pytest.approx(curve(whole, "grad_norm")[0][0] * 5 / 6, rel=1e-4)
    for done in (oats, ours):
        assert (done.counts["pairs"], done.counts["unlabelled"]) == (5, 1)


def test_a_buffer_brings_older_preferences_back_and_no_pair_is_scored_twice(new_trial):
    trial = trained(new_trial, rounds=2, pi_buffer_maxlen=10, train_batch_size=16)
    first, second = (trial.ledger.find_done(round_, "policy") for round_ in (0, 1))
    # Of twelve preferences the ten newest: the four newest of round 0 (one of them the clash) and the six of round 1.
    assert (second.counts["pairs"], second.counts["unlabelled"]) == (8, 2)
    assert {key.split("/")[1] for key in second.inputs if "/sampling/" in key} == {"00000", "00001"}
    scores = [
        REFERENCE_SCORES.from_bytes(trial.ledger.read_output("policy", REFERENCE_SCORES.name, round_))
        for round_ in (0, 1)
    ]
    assert [len(found) for found in scores] == [first.counts["pairs"], 5]


def test_a_buffer_that_is_cleared_every_round_holds_the_round_alone(new_trial):
    trial = trained(new_trial, rounds=2, pi_buffer_maxlen=100, buffer_clear_every=1)
    assert trial.ledger.find_done(1, "policy").counts["pairs"] == 5


def test_what_the_reference_said_before_a_kill_is_not_asked_again(new_trial, plain):
    trial = new_trial()
    trial.open(0)
    said = REFERENCE_SCORES.from_bytes(plain.ledger.read_output("policy", REFERENCE_SCORES.name, 0))
    # One token of every chosen completion is a nat likelier: whoever adopts that starts at margin -1.
    moved = [ReferenceScore(row.pair_id, (row.chosen[0] + 1, *row.chosen[1:]), row.rejected) for row in said]
    key = layout.output_key(0, "policy", REFERENCE_SCORES.name)
    trial.ledger.store.put_if_absent(key, REFERENCE_SCORES.to_bytes(moved))
    (loss,) = curve(trial.train(0), "loss")[0]
    assert loss == pytest.approx(math.log1p(math.exp(0.5)), abs=1e-5)


def test_who_samples_is_refreshed_as_often_as_the_settings_say(new_trial):
    trial = trained(new_trial, rounds=1, sync_params_every=2)
    trial.open(1)
    first, second = (trial.ledger.read_plan(round_) for round_ in (0, 1))
    assert (first.sampler.round, first.policy.round) == (-1, -1)
    assert (second.sampler.round, second.policy.round) == (-1, 0)


@pytest.fixture(scope="module")
def adapted(new_trial):
    return trained(new_trial, rounds=2, lora_rank=4, learning_rate=2e-2)


def test_an_adapter_learns_and_goes_on_in_the_next_round(adapted):
    losses = losses_of(adapted, 2)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[2] < 0.5
    assert adapted.ledger.find_done(1, "policy").counts["optimizer_steps"] == 4


@pytest.mark.parametrize("stage", [2, 3])
def test_an_adapter_is_the_same_on_more_workers(new_trial, adapted, stage):
    trial = trained(new_trial, rounds=2, lora_rank=4, learning_rate=2e-2, zero_stage=stage, train_workers=2)
    assert losses_of(trial, 2) == pytest.approx(losses_of(adapted, 2), abs=1e-4)


def test_the_policy_is_the_starting_model_and_its_adapter_in_one(adapted, tiny_model, tmp_path):
    import torch
    from oatflow.components.store.transfer import download_folder
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = adapted.ledger.find_done(1, "policy")
    download_folder(adapted.ledger.store, done.list_folder("adapter"), tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter_model.safetensors"}
    whole = AutoModelForCausalLM.from_pretrained(adapted.model(1, tmp_path / "model"))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokens = torch.tensor([[2, 3, 4, 9]])
    before = base(tokens).logits
    both = PeftModel.from_pretrained(base, tmp_path / "adapter")(tokens).logits
    assert torch.allclose(whole(tokens).logits, both, atol=1e-5)
    assert not torch.allclose(before, both, atol=1e-2)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert str(tiny_model.parent) not in json.dumps(config)
    moments = [placed.size for placed in adapted.ledger.find_done(0, "policy").list_folder("optimizer")]
    assert sum(moments) < sum(placed.size for placed in done.list_folder("model"))


def test_an_adapter_without_a_layer_to_sit_on_is_refused_with_the_layers_there_are(new_trial):
    trial = new_trial(lora_rank=4, lora_targets="q_proj,query")
    with pytest.raises(SettingsError, match=r"no layer query; it has .*q_proj"):
        trial.open(0)


def test_a_checkpoint_with_a_missing_file_is_refused_by_its_name_before_anything_is_computed(new_trial):
    trial = trained(new_trial)
    trial.open(1)
    (weights,) = [
        placed.key
        for placed in trial.ledger.find_done(0, "policy").list_folder("model")
        if placed.name.endswith(".safetensors")
    ]
    trial.ledger.store.delete(weights)
    with pytest.raises(TrainingFailed, match=weights):
        trial.train(1)
    assert not list(trial.ledger.store.list(layout.output_key(1, "policy", "")))


def test_a_gradient_that_is_not_finite_stops_training_and_names_its_duels(new_trial):
    trial = new_trial(dap_algo="ipo", beta=1e-30)
    trial.open(0)
    with pytest.raises(TrainingFailed, match=r"the (loss|norm of the gradient) is (inf|nan) on the duels [0-9a-f]{24}"):
        trial.train(0)
    assert trial.ledger.find_done(0, "policy") is None


def test_a_step_tells_how_probable_the_chosen_and_the_rejected_answers_were_before_it(new_trial):
    trial = trained(new_trial, train_batch_size=6)
    scores = REFERENCE_SCORES.from_bytes(trial.ledger.read_output("policy", REFERENCE_SCORES.name, 0))
    chosen, rejected = (fmean(sum(getattr(pair, side)) for pair in scores) for side in ("chosen", "rejected"))
    done = trial.ledger.find_done(0, "policy")
    assert curve(done, "chosen_logprob", "rejected_logprob") == [pytest.approx((chosen, rejected), rel=1e-5)]
    assert (done.facts["chosen_logprob"], done.facts["rejected_logprob"]) == pytest.approx((chosen, rejected), rel=1e-5)
