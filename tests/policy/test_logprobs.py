"""Log-probabilities and entropies against a naive computation and finite differences."""

import math

import pytest
import torch
from oatflow.components.policy import logprobs as room
from oatflow.components.policy.logprobs import logits_only_at, minus_entropy, sum_by_completion, token_logprobs


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


def naive_minus_entropy(row):
    """Add up p log p in Python's own numbers; what is never drawn adds nothing."""
    highest = max(row)
    weights = [math.exp(value - highest) for value in row]
    probabilities = [weight / math.fsum(weights) for weight in weights]
    return math.fsum(p * math.log(p) for p in probabilities if p > 0)


@pytest.mark.parametrize("rows", [1, 3, 7, 256])
def test_minus_entropy_is_the_naive_sum_wherever_the_rows_are_cut(monkeypatch, rows):
    monkeypatch.setattr(room, "ROWS_AT_ONCE", 3)
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, 11, generator=generator, dtype=torch.float64) * 5
    assert minus_entropy(logits).tolist() == pytest.approx(
        [naive_minus_entropy(row) for row in logits.tolist()], abs=1e-12
    )


def test_minus_entropy_of_tokens_that_are_never_drawn_is_that_of_the_others():
    never = -math.inf
    logits = torch.tensor([[0.0, never, 0.0, never], [never, never, 3.0, never], [1.0, 2.0, never, -2e4]])
    found = minus_entropy(logits)
    assert found.tolist() == pytest.approx([naive_minus_entropy(row) for row in logits.tolist()], abs=1e-6)
    assert found[:2].tolist() == pytest.approx([-math.log(2), 0.0], abs=1e-6)


def test_minus_entropy_of_bfloat16_logits_is_computed_in_float32_and_has_no_gradient():
    logits = torch.randn(8, 1000, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    found = minus_entropy(logits)
    assert found.dtype == torch.float32 and not found.requires_grad
    expected = [naive_minus_entropy(row) for row in logits.detach().double().tolist()]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_token_that_the_model_never_draws_has_log_probability_minus_infinity_and_the_others_keep_theirs():
    logits = torch.tensor([[0.0, -math.inf, 0.0], [0.0, -math.inf, 0.0]], requires_grad=True)
    found = token_logprobs(logits, torch.tensor([0, 1]))
    assert found.tolist() == [pytest.approx(-math.log(2)), -math.inf]
    found[0].backward()
    assert logits.grad[0].tolist() == pytest.approx([0.5, 0.0, -0.5]) and logits.grad[1].tolist() == [0.0] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_makes_all_logits_again_once_some_were_made(fails):
    class Model(torch.nn.Module):
        """An output layer alone."""

        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 5)

        def get_output_embeddings(self):
            return self.head

    model, hidden = Model(), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    row, column = torch.tensor([0, 1, 1]), torch.tensor([3, 0, 2])
    try:
        with logits_only_at(model, row, column):
            some = model.head(hidden)
            if fails:
                raise MemoryError
    except MemoryError:
        pass
    everything = model.head(hidden)
    assert everything.shape == (2, 4, 5)
    assert torch.allclose(some, everything[row, column])
