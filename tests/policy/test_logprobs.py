"""Log-probabilities against a naive computation, finite differences, and Oat's learning step on a bigram model."""

import json
from pathlib import Path

import pytest
import torch
from oatflow.components.policy import logprobs as room
from oatflow.components.policy.logprobs import logits_only_at, sum_by_completion, token_logprobs
from oatflow.components.policy.losses import dpo
from oatflow.components.policy.rows import lay_out
from oatflow.components.policy.tokens import Pair

BIGRAM = json.loads((Path(__file__).parents[1] / "golden" / "oat_dpo.json").read_text())["bigram_learning_steps"]


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_values_and_gradients_are_those_of_a_naive_log_softmax(monkeypatch, rows):
    monkeypatch.setattr(room, "ROWS_AT_ONCE", 3)
    generator = torch.Generator().manual_seed(rows)
    logits = (torch.randn(rows, 11, generator=generator, dtype=torch.float64) * 5).requires_grad_()
    labels = torch.randint(11, (rows,), generator=generator)
    weights = torch.randn(rows, generator=generator, dtype=torch.float64)
    naive = torch.stack([logits[row].log_softmax(0)[label] for row, label in enumerate(labels)])
    (expected,) = torch.autograd.grad(naive @ weights, logits)
    ours = token_logprobs(logits, labels)
    (found,) = torch.autograd.grad(ours @ weights, logits)
    assert torch.allclose(ours, naive, atol=1e-12) and torch.allclose(found, expected, atol=1e-12)


def test_gradients_agree_with_finite_differences():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: token_logprobs(given, torch.tensor([0, 4, 2, 2])), (logits,))


def test_bfloat16_logits_are_summed_up_in_float32_and_keep_no_float32_copy_for_the_backward_pass():
    logits = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    labels = torch.arange(8)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        found = token_logprobs(logits, labels)
    exact = logits.detach().double().log_softmax(1)[labels, labels]
    assert found.dtype == torch.float32 and torch.allclose(found.double(), exact, atol=1e-5)
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    assert not [tensor for tensor in saved if tensor.numel() >= logits.numel() and tensor.dtype != torch.bfloat16]


def test_extreme_logits_stay_finite():
    found = token_logprobs(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert found.tolist() == [0.0, -2e4]


def test_tokens_add_up_to_their_completions():
    assert sum_by_completion(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 2]), 3).tolist() == [2.0, 0.0, 5.0]


def test_logits_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="must be"):
        token_logprobs(torch.zeros(3, 5), torch.zeros(2, dtype=torch.long))


class Bigram(torch.nn.Module):
    """A model whose next token depends on the last one alone: its output layer is the whole of it."""

    def __init__(self, table):
        super().__init__()
        self.head = torch.nn.Linear(len(table), len(table), bias=False, dtype=torch.float64)
        self.head.weight = torch.nn.Parameter(torch.tensor(table, dtype=torch.float64).T.contiguous())

    def get_output_embeddings(self):
        return self.head

    def forward(self, tokens):
        return self.head(torch.nn.functional.one_hot(tokens, self.head.in_features).double())


def completions(model, rows):
    with logits_only_at(model, rows.row, rows.column):
        logits = model(rows.tokens)
    return sum_by_completion(token_logprobs(logits, rows.label), rows.completion, rows.completions)


def test_a_learning_step_on_a_bigram_model_is_oats():
    fixture = BIGRAM["fixture"]
    pairs = [
        Pair(str(place), tuple(prompt), *((tuple(first), tuple(second))))
        for place, (prompt, first, second) in enumerate(
            zip(fixture["prompts"], fixture["chosen"], fixture["rejected"], strict=True)
        )
    ]
    # In a bigram model the rejected tokens of a shared row would follow the chosen ones: two rows a pair.
    rows = lay_out(pairs, fixture["pad_id"], one_row=False)
    policy, reference = Bigram(fixture["policy_table"]), Bigram(fixture["ref_table"])
    chosen, rejected = completions(policy, rows).chunk(2)
    on_record = BIGRAM["sequence_logps"]["DPO"]
    assert chosen.tolist() == pytest.approx(on_record["chosen"], abs=1e-6)
    assert rejected.tolist() == pytest.approx(on_record["rejected"], abs=1e-6)
    with torch.no_grad():
        ref_chosen, ref_rejected = completions(reference, rows).chunk(2)
    (step,) = BIGRAM["steps"]
    keep = torch.tensor(fixture["loss_masks_keep"], dtype=torch.float64)
    loss = (dpo(chosen, rejected, ref_chosen, ref_rejected, step["params"]["beta"]) * keep).mean()
    loss.backward()
    assert loss.item() == pytest.approx(step["loss"], abs=1e-6)
    expected = torch.tensor(step["grad_table"], dtype=torch.float64)
    assert torch.allclose(policy.head.weight.grad.T, expected, atol=1e-6)
