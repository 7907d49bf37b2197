"""Laws of every direct loss, on pairs of any shape: what a loss must not depend on, and what it must turn with."""

import math
from types import SimpleNamespace

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from oatflow.components.policy.losses import REDUCTIONS, mean_over_kept
from oatflow.components.policy.objective import Completions, compute_losses
from oatflow.components.policy.registry import LOSSES
from oatflow.components.policy.rows import lay_out
from oatflow.components.policy.scoring import score_completions
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.policy.tokens import Pair

VOCABULARY, LONGEST = 9, 16
ALGORITHMS = pytest.mark.parametrize("algo", LOSSES)
LAYOUTS = pytest.mark.parametrize("one_row", [True, False], ids=["one-row", "two-rows"])

law = hypothesis.settings(max_examples=25, derandomize=True, deadline=None)
costly_law = hypothesis.settings(law, max_examples=5)
tokens = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(tuple)
some_pairs = st.lists(st.builds(Pair, st.just("d"), tokens, tokens, tokens), min_size=1, max_size=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors as small as these only wait for threads where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Listener(torch.nn.Module):
    """One layer of attention in float64: what a token's place and the tokens that it sees are, shows in its logits."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape):
            return torch.nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

        self.words, self.places, self.asks = weight(VOCABULARY, 6), weight(LONGEST, 6), weight(6, 6)
        self.head = torch.nn.Linear(6, VOCABULARY, bias=False, dtype=torch.float64)
        self.head.weight = weight(VOCABULARY, 6)

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask, position_ids, use_cache):
        states = self.words[input_ids] + self.places[position_ids]
        width = input_ids.shape[1]
        sees = torch.ones(width, width).tril().bool() if attention_mask is None else attention_mask[:, 0]
        heard = (states @ self.asks @ states.transpose(1, 2)).masked_fill(~sees, -math.inf).softmax(-1)
        return SimpleNamespace(logits=self.head((states + heard @ states).tanh()))


POLICY, REFERENCE = Listener(0), Listener(1)


def compute_pairs(pairs, settings, pad=0, one_row=True):
    rows = lay_out(pairs, pad, one_row)
    with torch.no_grad():
        reference = score_completions(REFERENCE, rows).logprobs
    return compute_losses(score_completions(POLICY, rows, reference, with_entropy=True), settings)


def learned(parts, settings, **layout):
    """Return the loss of a step that is cut into parts, and its gradient at every weight of the policy."""
    kept = sum(map(len, parts))
    POLICY.zero_grad()
    total = 0.0
    for pairs in parts:
        loss = mean_over_kept(
            compute_pairs(pairs, settings, **layout).losses, torch.ones(len(pairs), dtype=torch.bool), kept
        )
        loss.backward()
        total += loss.item()
    return total, torch.cat([weight.grad.flatten() for weight in POLICY.parameters()])


def assert_same_step(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-9)
    assert torch.allclose(one[1], other[1], rtol=1e-9, atol=1e-9)


@ALGORITHMS
@LAYOUTS
@hypothesis.given(pairs=some_pairs, pad=st.integers(0, VOCABULARY - 1), cut=st.integers(0, 4))
@costly_law
def test_padding_and_the_cut_into_forward_passes_change_neither_loss_nor_gradient(algo, one_row, pairs, pad, cut):
    settings = PolicySettings(dap_algo=algo)
    whole = learned([pairs], settings, one_row=one_row)
    assert_same_step(learned([pairs], settings, one_row=one_row, pad=pad), whole)
    parts = [part for part in (pairs[:cut], pairs[cut:]) if part]
    assert_same_step(learned(parts, settings, one_row=one_row, pad=pad), whole)
    assert_same_step(learned([[pair] for pair in reversed(pairs)], settings, one_row=not one_row), whole)


@ALGORITHMS
@hypothesis.given(pairs=some_pairs, neighbour=tokens)
@law
def test_a_pairs_loss_is_its_own_whatever_is_beside_it(algo, pairs, neighbour):
    settings = PolicySettings(dap_algo=algo)
    longer = Pair("d", neighbour * 2, neighbour, neighbour[:1])
    alone, beside = compute_pairs(pairs, settings), compute_pairs([*pairs, longer], settings)
    assert beside.losses[:-1].tolist() == pytest.approx(alone.losses.tolist(), rel=1e-9, abs=1e-9)
    assert beside.reward_margins[:-1].tolist() == pytest.approx(alone.reward_margins.tolist(), rel=1e-9, abs=1e-9)


def test_oats_bnf_is_no_pairs_own():
    pairs = [Pair("a", (1, 2), (3, 4, 5), (6, 7)), Pair("b", (2,), (3,), (4, 5))]
    oats = PolicySettings(dap_algo="bnf", bnf_length="batch")
    alone, beside = compute_pairs(pairs[:1], oats).losses, compute_pairs(pairs, oats).losses
    assert beside[0].item() == pytest.approx(2 * alone[0].item())


@ALGORITHMS
@hypothesis.given(pairs=some_pairs)
@law
def test_swapping_chosen_and_rejected_turns_the_reward_margin_round(algo, pairs):
    settings = PolicySettings(dap_algo=algo)
    swapped = [Pair(pair.duel_id, pair.prompt, pair.rejected, pair.chosen) for pair in pairs]
    there, back = compute_pairs(pairs, settings).reward_margins, compute_pairs(swapped, settings).reward_margins
    assert back.tolist() == pytest.approx((-there).tolist(), rel=1e-9, abs=1e-9)


# Completions without a model: log-probabilities of tokens as they come.

logprob = st.one_of(st.floats(-30, 0), st.sampled_from([0.0, -1e-9, -1e4]))


@st.composite
def some_completions(draw, logprobs=logprob):
    """Return tokens of up to four pairs as the policy, with a gradient, and the reference see them."""
    counts = draw(st.sampled_from([2, 4, 6, 8]).flatmap(lambda n: st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    completion = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def values(kind):
        drawn = draw(st.lists(kind, min_size=len(completion), max_size=len(completion)))
        return torch.tensor(drawn, dtype=torch.float64)

    return Completions(completion, values(logprobs).requires_grad_(), values(logprobs), values(st.floats(-6, 0)))


@ALGORITHMS
@pytest.mark.parametrize("mean", REDUCTIONS)
@hypothesis.given(given=some_completions(), kept=st.lists(st.booleans(), min_size=4, max_size=4))
@costly_law
def test_masked_pairs_have_no_gradient_and_the_others_the_one_they_have_without_them(algo, mean, given, kept):
    values = compute_losses(given, PolicySettings(dap_algo=algo)).losses
    keep = torch.tensor(kept[: len(values)])
    (gradient,) = torch.autograd.grad(REDUCTIONS[mean](values, keep, 4), given.logprobs, retain_graph=True)
    is_kept = torch.cat([keep, keep])[given.completion]
    assert (gradient[~is_kept] == 0).all()
    (whole,) = torch.autograd.grad(values.sum() / 4, given.logprobs)
    assert torch.equal(gradient[is_kept], whole[is_kept])


@hypothesis.given(given=some_completions())
@law
def test_simpo_does_not_depend_on_the_reference(given):
    settings = PolicySettings(dap_algo="simpo")
    found = []
    for reference in (given.reference, given.reference.flip(0) - 7, torch.full_like(given.reference, math.nan), None):
        computed = compute_losses(Completions(given.completion, given.logprobs, reference), settings)
        (gradient,) = torch.autograd.grad(computed.losses.sum(), given.logprobs)
        found.append((computed.losses.tolist(), computed.reward_margins.tolist(), gradient.tolist()))
    assert all(one == found[0] for one in found)


@ALGORITHMS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@hypothesis.given(given=some_completions(st.sampled_from([0.0, -1.0, -1e4])))
@law
def test_loss_and_gradient_are_finite_for_extreme_log_probabilities(algo, dtype, given):
    logprobs = given.logprobs.detach().to(dtype).requires_grad_()
    tokens = Completions(given.completion, logprobs, given.reference.to(dtype), given.minus_entropy.to(dtype))
    computed = compute_losses(tokens, PolicySettings(dap_algo=algo))
    (gradient,) = torch.autograd.grad(computed.losses.sum(), logprobs)
    assert computed.losses.isfinite().all() and computed.reward_margins.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("algo", [algo for algo, loss in LOSSES.items() if loss.needs_reference])
@hypothesis.given(given=some_completions())
@law
def test_a_policy_that_is_still_its_reference_prefers_nothing(algo, given):
    same = Completions(given.completion, given.logprobs, given.logprobs.detach(), given.minus_entropy)
    assert compute_losses(same, PolicySettings(dap_algo=algo)).reward_margins.abs().max() == 0
