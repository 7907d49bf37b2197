"""The training program with real DeepSpeed, against a plain loop that knows nothing of ours but the records."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oatflow.components.errors import TrainingFailed
from oatflow.components.ledger import layout
from oatflow.components.seeds import derive

pytestmark = pytest.mark.slow


def plain_loop(trial, rounds):
    """Both rounds in one process: naive log-probabilities in float64, one row a completion, torch's own AdamW."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = trial.policy()
    tokenizer = AutoTokenizer.from_pretrained(settings.pretrain)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(settings.pretrain, dtype=torch.float64).eval() for _ in range(2)
    )
    weights = list(policy.parameters())
    adam = torch.optim.AdamW(
        [
            {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": settings.l2},
            {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0},
        ],
        betas=(settings.adam_beta_1, settings.adam_beta_2),
    )

    def logprob(model, prompt, completion):
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
        return sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(completion))

    curve, step = [], 0
    for round_ in range(rounds):
        candidates = trial.written[round_]
        pairs = []
        for prompt, first, second in zip(
            trial.ledger.read_plan(round_).prompts, candidates[::2], candidates[1::2], strict=True
        ):
            if first.response != second.response:
                good, bad = (first, second) if "good" in first.response else (second, first)
                pairs.append((tokenizer(prompt.text)["input_ids"], good.tokens, bad.tokens, second.tokens))
        random.Random(derive(0, round_, "train", 0)).shuffle(pairs)
        for batch in (pairs[:4], pairs[4:]):
            step += 1
            losses = []
            for prompt, good, bad, of_reference in batch:
                margin = logprob(policy, prompt, good) - logprob(policy, prompt, bad)
                with torch.no_grad():
                    margin -= logprob(reference, prompt, good) - logprob(reference, prompt, bad)
                loss = -torch.nn.functional.logsigmoid(settings.beta * margin)
                if trial.settings["exploration"]["exp_method"] == "XPO":
                    loss = loss + settings.xpo_alpha * logprob(policy, prompt, of_reference)
                losses.append(loss)
            loss = sum(losses) / len(batch)
            adam.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, settings.max_norm)
            # Four steps in all, one of them to warm up.
            cosine = (1 + math.cos(math.pi * (step - 1) / 3)) / 2
            for group in adam.param_groups:
                group["lr"] = settings.learning_rate * (0.1 + 0.9 * cosine)
            adam.step()
            curve.append((loss.item(), norm.item()))
    return curve, policy


@pytest.fixture(scope="module")
def finished(new_trial):
    """Return two rounds with a given ZeRO stage and number of workers, trained once."""
    trials = {}

    def trained(stage, workers, **settings):
        if (stage, workers, *settings) not in trials:
            trial = new_trial(zero_stage=stage, train_workers=workers, **settings)
            for round_ in (0, 1):
                trial.open(round_)
                trial.train(round_)
                trial.close(round_)
            trials[stage, workers, *settings] = trial
        return trials[stage, workers, *settings]

    return trained


@pytest.mark.parametrize(("stage", "workers"), [(0, 1), (0, 2), (1, 1), (2, 2), (3, 2)])
def test_every_zero_stage_and_number_of_workers_learns_what_a_plain_loop_learns(finished, tmp_path, stage, workers):
    learns_as_a_plain_loop(finished(stage, workers), tmp_path)


def test_two_workers_learn_by_xpo_what_a_plain_loop_learns(finished, tmp_path):
    learns_as_a_plain_loop(finished(2, 2, exp_method="XPO", xpo_alpha=0.05), tmp_path)


def learns_as_a_plain_loop(trial, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    curve = [point for round_ in (0, 1) for point in trial.ledger.find_done(round_, "policy").facts["curve"]]
    expected, policy = plain_loop(trial, 2)
    assert [point["loss"] for point in curve] == pytest.approx([loss for loss, _ in expected], abs=1e-4)
    assert [point["grad_norm"] for point in curve] == pytest.approx([norm for _, norm in expected], rel=1e-3)
    ours = AutoModelForCausalLM.from_pretrained(trial.model(1, tmp_path), dtype=torch.float64).state_dict()
    for name, weight in policy.state_dict().items():
        assert torch.allclose(ours[name], weight, atol=2e-4), name


def test_the_loss_falls_on_pairs_that_can_be_told_apart(finished):
    facts = finished(0, 1).ledger.find_done(1, "policy").facts
    assert facts["curve"][-1]["loss"] < 0.3 and facts["accuracy"] == 1.0 and facts["reward_margin"] > 0.5


def test_the_figures_of_a_round_are_those_of_its_pairs(finished):
    trial = finished(0, 1)
    done = trial.ledger.find_done(1, "policy")
    duels = [trial.written[1][place : place + 2] for place in range(0, 10, 2)]
    tokens = sum(first.prompt_tokens + len(first.tokens) + len(second.tokens) for first, second in duels)
    assert dict(done.counts) == {
        "pairs": 5, "unlabelled": 1, "identical": 0, "optimizer_steps": 4, "steps_this_round": 2, "tokens": tokens,
    }  # fmt: skip
    assert set(done.timings) == {
        "startup", "work", "load", "reference", "forward_backward", "optimizer", "export", "upload",
    }  # fmt: skip
    assert (done.facts["world_size"], done.facts["zero_stage"], done.facts["precision"]) == (1, 0, "float32")
    read = {key.split("/")[2] + "/" + key.split("/")[-1] for key in done.inputs}
    assert {"sampling/duels.parquet", "sampling/candidates.parquet", "labeling/preferences-0001.parquet"} <= read


def test_the_first_step_is_taken_from_the_reference_itself(finished):
    first = finished(2, 2).ledger.find_done(0, "policy").facts["curve"][0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["reward_margin"] == pytest.approx(
        0, abs=1e-5
    )


def test_the_policy_is_an_ordinary_model_folder_with_the_starting_models_tokenizer(finished, tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished(3, 2).model(0, tmp_path)
    assert {weight.dtype for weight in AutoModelForCausalLM.from_pretrained(folder).parameters()} == {torch.float32}
    assert AutoTokenizer.from_pretrained(folder)("the good tea")["input_ids"] == [5, 6, 9]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (tiny_model / name).read_bytes()
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_every_round_leaves_the_optimizer_as_any_may_be_gone_on_from(finished):
    first, last = (finished(2, 2).ledger.find_done(round_, "policy") for round_ in (0, 1))
    for done in (first, last):
        assert {placed.name for placed in done.list_folder("optimizer")} == {
            "exp_avg.safetensors", "exp_avg_sq.safetensors", "state.json",
        }  # fmt: skip


def test_a_round_may_go_on_with_other_workers_than_the_one_before(new_trial):
    trial = new_trial(zero_stage=3, train_workers=2)
    trial.open(0)
    trial.train(0)
    trial.close(0)
    trial.settings["policy"] |= {"zero_stage": 0, "train_workers": 1, "train_batch_size_per_device": 4}
    trial.open(1)
    curve = trial.train(1).facts["curve"]
    expected, _ = plain_loop(trial, 2)
    assert [point["loss"] for point in curve] == pytest.approx([loss for loss, _ in expected[2:]], abs=1e-4)


def test_bfloat16_passes_on_float32_weights_learn_nearly_the_same(new_trial):
    trial = new_trial(precision="bfloat16", zero_stage=2)
    trial.open(0)
    done = trial.train(0)
    expected, _ = plain_loop(trial, 1)
    assert [point["loss"] for point in done.facts["curve"]] == pytest.approx([loss for loss, _ in expected], abs=0.05)
    assert done.facts["precision"] == "bfloat16"


def test_what_is_not_finite_stops_training_and_names_its_duels(new_trial):
    trial = new_trial(beta=1e38)
    trial.open(0)
    # The loss of the first step, at margin 0, is still finite; the gradient of its four pairs is not.
    told = r": the norm of the gradient is nan on the duels ([0-9a-f]{24}(, |\. )){4}"
    with pytest.raises(TrainingFailed, match=told):
        trial.train(0)
    # What the reference thinks of the pairs stays, for whoever tries again; of a policy there is nothing.
    left = [entry.key for entry in trial.ledger.store.list(layout.output_key(0, "policy", ""))]
    assert left == [layout.output_key(0, "policy", "reference.parquet")]


def test_a_round_of_clashes_alone_leaves_the_policy_as_it_was(new_trial, tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    trial = new_trial()
    trial.settings["prompts"]["rollout_batch_size"] = 1
    trial.open(0)
    done = trial.train(0)
    assert (done.counts["pairs"], done.counts["steps_this_round"], done.facts["curve"]) == (0, 0, [])
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_model, trial.model(0, tmp_path)))
    assert all(torch.equal(one, other) for one, other in zip(before.parameters(), after.parameters(), strict=True))
    trial.close(0)
    trial.open(1)
    assert trial.train(1).counts["optimizer_steps"] == 0


def test_killed_before_it_uploads_a_training_leaves_nothing_and_nobody_behind(new_trial, tmp_path):
    trial = new_trial(train_workers=2)
    trial.open(0)
    progress = tmp_path / "progress"
    program = (
        "import sys; from oatflow.components.ledger.ledger import Ledger; "
        "from oatflow.components.rounds.steps import run_train; run_train(Ledger.open(sys.argv[1]), 0, 'run')"
    )
    door = subprocess.Popen(
        [sys.executable, "-c", program, trial.uri], env={**os.environ, "OATFLOW_PROGRESS": str(progress)}
    )
    wait_until(lambda: progress.exists() and '"work"' in progress.read_text())
    door.send_signal(signal.SIGKILL)
    door.wait()
    wait_until(lambda: not processes_with(trial.uri))
    assert trial.ledger.find_done(0, "policy") is None
    assert trial.train(0).counts["pairs"] == 5


def wait_until(truth, seconds=60):
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end
        time.sleep(0.01)


def processes_with(word):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path] if word.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found
