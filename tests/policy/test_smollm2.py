"""Every direct loss on a real model: SmolLM2-135M learns from a fixed preference set, ZeRO 2 on two workers.

What is held out are 64 or 128 pairs; what is learned from are eight or sixteen steps of four.
"""

import json
import subprocess
import sys

import pytest
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.laptop.starting_model import find_smollm2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return find_smollm2(tmp_path_factory.mktemp("home"))


@pytest.fixture
def learn(model, tmp_path):
    """Return what does all rounds of an offline experiment and returns its ledger."""

    def run(**flags):
        wanted = {
            "pretrain": str(model), "zero_stage": "2", "train_workers": "2", "train_batch_size": "4",
            "train_batch_size_per_device": "2", "max_queries": "32", "max_eval": "64", "learning_rate": "3e-5",
            **flags,
        }  # fmt: skip
        settings = gather("offline", None, wanted).model_dump(mode="json")
        uri = f"file://{tmp_path}/experiment"
        while (round_ := open_round(uri, settings, "run")) != NOTHING_TO_DO:
            for step in (run_sampling, run_labeling, run_train, run_evaluation):
                step(Ledger.open(uri), round_, "run")
            close_round(uri, round_, "run")
        return Ledger.open(uri)

    return run


def preferred(folder, ledger):
    """Of the held-out pairs, the difference of both answers' log-probabilities per token, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right", pad_token="<|endoftext|>")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def scores(answered):
        turns = [[{"role": "user", "content": prompt}] for prompt, _ in answered]
        starts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
        before = [len(tokenizer(start)["input_ids"]) for start in starts]
        whole = [start + answer + tokenizer.eos_token for start, (_, answer) in zip(starts, answered, strict=True)]
        batch = tokenizer(whole, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = network(**batch).logits[:, :-1].float().log_softmax(-1)
        tokens = logits.gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        lengths = batch["attention_mask"].sum(1).tolist()
        return [row[first - 1 : length - 1].mean().item() for row, first, length in
                zip(tokens, before, lengths, strict=True)]  # fmt: skip

    rows = ledger.eval_prompts()
    chosen, rejected = (
        [score for at in range(0, len(rows), 16) for score in scores([(row.text, getattr(row, side)) for row in
                                                                      rows[at : at + 16]])]
        for side in ("chosen", "rejected")
    )  # fmt: skip
    return [better - worse for better, worse in zip(chosen, rejected, strict=True)]


# Before the first step the implicit reward of these is zero for every answer. Chance is 32 of 64, give or take 4:
# more than three times that must be better than it.
@pytest.mark.parametrize(("algo", "beta"), [("dpo", "0.1"), ("ipo", "0.1"), ("slic", "0.1"), ("lr_dpo", "2.0")])
def test_eight_steps_raise_the_held_out_accuracy(learn, algo, beta):
    done = learn(dap_algo=algo, beta=beta).find_done(0, "policy")
    assert (done.counts["steps_this_round"], done.counts["held_out_pairs"]) == (8, 64)
    assert (done.facts["world_size"], done.facts["zero_stage"]) == (2, 2)
    assert done.facts["held_out_accuracy"] > 0.5 + 3 * 4 / 64
    assert done.facts["held_out_margin"] > 0


def test_sixteen_steps_of_simpo_raise_the_accuracy_that_transformers_alone_finds_at_the_start(learn, model):
    ledger = learn(dap_algo="simpo", beta="2.0", max_queries="64", rollout_batch_size="64", max_eval="128",
                   learning_rate="5e-5")  # fmt: skip
    done = ledger.find_done(0, "policy")
    assert (done.counts["steps_this_round"], done.counts["held_out_pairs"]) == (16, 128)
    before = sum(margin > 0 for margin in preferred(model, ledger)) / 128
    assert done.facts["held_out_accuracy"] > before + 0.05


NEVER_STOPPED = """
import json, sys
from dataclasses import replace
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.policy.checkpoint import load_model
from oatflow.components.policy.learner import Learner, init_workers
from oatflow.components.policy.optimising import Optimiser
from oatflow.components.policy.reference import index_scores
from oatflow.components.policy.stopwatch import Stopwatch
from oatflow.components.records.keep import read_table
from oatflow.components.records.tables import REFERENCE_SCORES
from oatflow.components.rounds.experiment import read_settings
from oatflow.components.rounds.training_program import open_trainer

rank, world = init_workers()
ledger = Ledger.open(sys.argv[1])
settings = read_settings(ledger.experiment.settings, {})
first, second = (open_trainer(ledger, settings, ledger.read_plan(round_), None, rank, world) for round_ in (0, 1))
reader = replace(first.reader, finished=ledger)
tables = [read_table(reader.finished, REFERENCE_SCORES, round_) for round_ in (0, 1)]
learner = Learner(load_model(first.starting_model, first.settings), first.settings, first.precision)
reference = index_scores([row for table in tables for row in table])
optimiser = Optimiser(learner, first.settings, reference, first.pad, True, Stopwatch())
curve = first.take_steps(optimiser, reader.read_round(0), 0)
curve += second.take_steps(optimiser, reader.read_round(1), 8)
if rank == 0:
    open(sys.argv[2], "w").write(json.dumps([point["loss"] for point in curve]))
"""


def test_stopped_after_step_8_and_resumed_from_the_ledger_it_ends_as_if_never_stopped(learn, tmp_path):
    ledger = learn(max_queries="64", rollout_batch_size="32", max_eval="4")
    resumed = [point["loss"] for round_ in (0, 1) for point in ledger.find_done(round_, "policy").facts["curve"]]
    program, found = tmp_path / "never_stopped.py", tmp_path / "losses.json"
    program.write_text(NEVER_STOPPED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*torchrun, str(program), ledger.store.uri, str(found)], check=True)
    assert len(resumed) == 16
    assert resumed == pytest.approx(json.loads(found.read_text()), abs=1e-4)
    assert resumed[8] != pytest.approx(resumed[0], abs=1e-2)
