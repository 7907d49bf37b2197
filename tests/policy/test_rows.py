"""A pair in one row is the same pair in two: for log-probabilities, for gradients, whatever it is padded with."""

import pytest
import torch
from oatflow.components.policy.rows import lay_out
from oatflow.components.policy.scoring import fits_one_row, sum_logprobs
from oatflow.components.policy.tokens import Pair

PAIRS = [
    Pair("a", (2, 3, 4), (5, 6, 1), (7,)),
    Pair("b", (2,), (8, 1), (9, 10, 11, 12)),
    Pair("c", (3, 3), (4,), (4, 1)),
]


@pytest.fixture(scope="module")
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()


def alone(model, prompt, completion):
    """A completion's log-probability in a row of its own, token by token."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + place, token] for place, token in enumerate(completion))


def test_a_pair_in_one_row_spelled_out():
    rows = lay_out(PAIRS[:1], 0, one_row=True)
    assert rows.tokens.tolist() == [[2, 3, 4, 5, 6, 1, 7]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 5, 3]]
    assert rows.sees[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 1],
    ]
    # Both completions begin where the prompt ends: column 2 predicts 5 of the chosen and 7 of the rejected one.
    assert rows.column.tolist() == [2, 3, 4, 2] and rows.label.tolist() == [5, 6, 1, 7]
    assert rows.completion.tolist() == [0, 0, 0, 1] and rows.completions == 2


def numbered(pairs):
    """Return one value for each token of each completion, told apart by completion and place."""
    completions = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return [[10.0 * number + place for place, _ in enumerate(tokens)] for number, tokens in enumerate(completions)]


@pytest.mark.parametrize("one_row", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_known_of_tokens_is_brought_to_their_predictions_and_back(one_row, count):
    rows, known = lay_out(PAIRS[:count], 0, one_row), numbered(PAIRS[:count])
    aligned = rows.align_tokens(known)
    assert [values.tolist() for values in rows.split_completions(aligned)] == known
    # Label by label: each prediction got what belongs to its own completion.
    assert (aligned // 10).int().tolist() == rows.completion.tolist()


@pytest.mark.parametrize("one_row", [True, False])
def test_a_label_is_the_token_of_its_completion_in_order(one_row):
    rows = lay_out(PAIRS, 0, one_row)
    labels = [tuple(values.tolist()) for values in rows.split_completions(rows.label)]
    assert labels == [pair.chosen for pair in PAIRS] + [pair.rejected for pair in PAIRS]
    assert rows.completions == 6


@pytest.mark.parametrize("one_row", [True, False])
def test_rows_go_to_a_device_whole(one_row):
    rows = lay_out(PAIRS, 0, one_row)
    moved = rows.move_to(torch.device("meta"))
    assert (moved.sees is None) == (rows.sees is None)
    assert {moved.tokens.device.type, moved.label.device.type, moved.completion.device.type} == {"meta"}


@pytest.mark.parametrize("one_row", [True, False])
@pytest.mark.parametrize("pad", [0, 9])
def test_every_completion_scores_as_if_it_stood_alone(model, one_row, pad):
    found = sum_logprobs(model, lay_out(PAIRS, pad, one_row))
    expected = [alone(model, pair.prompt, completion) for side in ("chosen", "rejected")
                for pair in PAIRS for completion in [getattr(pair, side)]]  # fmt: skip
    assert found.tolist() == pytest.approx([value.item() for value in expected], abs=1e-5)


def test_gradients_do_not_depend_on_the_layout(model):
    gradients = []
    for one_row in (True, False):
        chosen, rejected = sum_logprobs(model, lay_out(PAIRS, 0, one_row)).chunk(2)
        gradients.append(torch.autograd.grad((chosen - 2 * rejected).sum(), list(model.parameters())))
    assert all(torch.allclose(one, two, atol=1e-4) for one, two in zip(*gradients, strict=True))


def test_a_model_of_plain_attention_takes_pairs_in_one_row(model):
    assert fits_one_row(model, PAIRS, 0)


def test_a_window_shorter_than_a_pair_takes_two_rows_as_does_attention_without_masks(model, monkeypatch):
    monkeypatch.setattr(model.config, "sliding_window", 6, raising=False)
    assert not fits_one_row(model, PAIRS, 0)
    monkeypatch.setattr(model.config, "sliding_window", 7, raising=False)
    assert fits_one_row(model, PAIRS, 0)
    monkeypatch.setattr(model.config, "_attn_implementation", "flash_attention_2")
    assert not fits_one_row(model, PAIRS, 0)


@pytest.fixture
def heedless(tiny_model, monkeypatch):
    """A model that takes positions and does not heed them, with weights large enough for that to show."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    heeding = model.forward
    monkeypatch.setattr(model, "forward", lambda *given, position_ids=None, **options: heeding(*given, **options))
    return model


def test_a_model_that_does_not_heed_positions_is_found_out(heedless):
    assert not fits_one_row(heedless, PAIRS[1:], 0)


def test_a_model_that_does_not_heed_positions_is_found_out_whatever_the_first_pair_is(heedless):
    assert not fits_one_row(heedless, PAIRS, 0)


def test_a_round_without_pairs_needs_no_layout(model):
    assert not fits_one_row(model, [], 0)
