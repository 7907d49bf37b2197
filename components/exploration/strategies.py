"""Which two of a prompt's candidates should duel (SEA, arXiv:2411.01493, section 4).

E members, M prompts, N candidates, K candidates to choose from. All functions are pure: randomness is an argument, an
order of the members or seeds. A member's *champion* is the candidate to which it gives the highest reward. A pair is
two candidate indices. A pair of equal texts is a clash, which `repair_clashes` handles afterwards. Ties go to the
lowest index. "In Oat's variant" means `exp_law: oat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import ExplorationSettings


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What the ensemble believes about the candidates of a round.

    Attributes:
        rewards: (E, M, N) the reward that each member gives each candidate.
        alike: (M, N) for each candidate, the first candidate of its prompt with the same text.
        order: (M, E) the order in which each prompt asks the members, uniformly random. In Oat's variant, all prompts
            have the same one.
    """

    rewards: Tensor
    alike: Tensor
    order: Tensor

    def __post_init__(self) -> None:
        members, prompts, candidates = self.rewards.shape
        assert candidates >= 2, f"{candidates} candidates cannot duel"
        _check_shape(self.alike, (prompts, candidates), "alike")
        _check_shape(self.order, (prompts, members), "order")


def draw_orders(seeds: Sequence[int], members: int) -> Tensor:
    """Derive the order in which each prompt asks the members from the prompt's own seed, (M, E)."""
    return torch.stack([torch.randperm(members, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def pair_first_two(prompts: int) -> Tensor:
    """Pair the first two candidates, which are independent draws of the policy."""
    return torch.tensor([0, 1]).repeat(prompts, 1)


def pick_enn_passive(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair the first two candidates; the reward model serves best-of-n only."""
    return pair_first_two(len(beliefs.alike))


def pick_enn_eets(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair two Thompson-sampled best answers, to explore and exploit (SEA, section 4).

    The champion of the first member duels with the first different champion among `enn_max_try` members, of which the
    first member is one.
    """
    champions = find_champions(beliefs)
    return _stack_pairs(
        champions[:, 0], find_first_unlike(champions[:, 0], champions[:, : settings.enn_max_try], beliefs.alike)
    )


def pick_enn_baits(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair a Thompson-sampled best answer with the answer whose chance of beating it the ensemble disagrees on most.

    Best-arm identification (SEA, section 4): the second candidate n has the largest variance over the members of
    sigmoid(r(champion) - r(n)). In Oat's variant, it has the largest variance of r(champion) - r(n); if all are zero,
    that is candidate 0, even if it is the champion.
    """
    first = find_champions(beliefs)[:, 0]
    margins = beliefs.rewards.take_along_dim(first[None, :, None], dim=2) - beliefs.rewards
    variance = _measure_disagreement(margins, settings)
    if settings.exp_law == "paper":
        variance = variance.masked_fill(~_differ_from(first, beliefs.alike), -1)
    return _stack_pairs(first, variance.argmax(1))


def pick_enn_uncertainty(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair the two candidates on whose duel the members disagree most: pure exploration (SEA, section 6.3)."""
    variance = _measure_disagreement(beliefs.rewards[..., :, None] - beliefs.rewards[..., None, :], settings)
    if settings.exp_law == "paper":
        # Sigmoids of i - j and of j - i round differently, and rounding must not decide between (i, j) and (j, i).
        variance = variance.masked_fill(~_differ_in_pairs(beliefs.alike).triu(1), -1)
    return _find_largest_pair(variance)


def pick_drts(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair the best answer of one sampled member with the worst answer of another: double reverse Thompson sampling.

    ActiveUltraFeedback, arXiv:2603.09692. The worst answer is sampled again as long as it equals the best one. A sample
    is a member, as in SEA; in that paper's code it is each answer's mean plus a random share of its deviation. If no
    other member has a different worst answer, the first member's own is taken.
    """
    best = find_champions(beliefs)[:, 0]
    worst = _put_in_order(beliefs.rewards.argmin(2), beliefs.order).roll(-1, dims=1)
    return _stack_pairs(best, find_first_unlike(best, worst, beliefs.alike))


def pick_delta_ucb(beliefs: Beliefs, settings: ExplorationSettings) -> Tensor:
    """Pair the candidates with the largest optimistic difference: upper bound of one minus lower bound of the other.

    ActiveUltraFeedback, arXiv:2603.09692. The bounds are a candidate's mean over the members plus and minus `ucb_beta`
    standard deviations. They ignore that the rewards of two candidates may vary together. With one member, the standard
    deviation is 0.
    """
    mean = beliefs.rewards.mean(0)
    width = settings.ucb_beta * beliefs.rewards.std(0, correction=min(1, len(beliefs.rewards) - 1))
    optimistic = (mean + width)[:, :, None] - (mean - width)[:, None, :]
    return _find_largest_pair(optimistic.masked_fill(~_differ_in_pairs(beliefs.alike), -torch.inf))


def pick_best_of_n(rewards: Tensor) -> Tensor:
    """Return the candidate with the highest mean reward over the members. (E, M, N) -> (M,)."""
    return rewards.mean(0).argmax(1)


def find_champions(beliefs: Beliefs) -> Tensor:
    """Return each member's champion, in the order in which the prompt asks the members, (M, E)."""
    return _put_in_order(beliefs.rewards.argmax(2), beliefs.order)


def find_first_unlike(first: Tensor, offered: Tensor, alike: Tensor) -> Tensor:
    """Return the first offered candidate with another text than `first`, or `first` if there is none.

    first: (M,); offered: (M, K). Returns (M,).
    """
    other = alike.gather(1, offered) != alike.gather(1, first[:, None])
    found = offered.gather(1, other.int().argmax(1, keepdim=True))[:, 0]
    return torch.where(other.any(1), found, first)


def repair_clashes(
    pairs: Tensor, beliefs: Beliefs | None, alike: Tensor, chance: Tensor, settings: ExplorationSettings
) -> tuple[Tensor, Tensor]:
    """Repair clashes as `on_clash` says: replace the second candidate, if there is one of another text.

    Args:
        pairs: (M, 2).
        beliefs: None without an ensemble.
        alike: (M, N), as in `Beliefs`.
        chance: (M,) a seed for each prompt.
        settings: Has `on_clash`.

    Returns:
        The pairs, (M, 2), and which of them may duel at all, (M,).
    """
    _check_shape(pairs, (len(alike), 2), "pairs")
    _check_shape(chance, (len(alike),), "chance")
    clash = _are_alike(pairs, alike)
    if settings.on_clash == "skip":
        return pairs, ~clash
    if settings.on_clash == "keep":
        return pairs, torch.ones_like(clash)
    first = pairs[:, 0]
    if settings.on_clash == "random":
        others = _stack_pairs(first, take_any_other(first, alike, chance))
    else:
        repair = take_second_best if settings.on_clash == "second_best" else redraw_second
        others = _stack_pairs(first, repair(first, beliefs, alike, settings))
    better = clash & ~_are_alike(others, alike)
    return torch.where(better[:, None], others, pairs), torch.ones_like(clash)


def redraw_second(first: Tensor, beliefs: Beliefs | None, alike: Tensor, settings: ExplorationSettings) -> Tensor:
    """Return the first different champion in the order of the members, (M,); without beliefs, the next candidate."""
    if beliefs is None or settings.strategy.is_blind:
        return find_first_unlike(first, torch.arange(alike.shape[1]).expand_as(alike), alike)
    return find_first_unlike(first, find_champions(beliefs), alike)


def take_second_best(first: Tensor, beliefs: Beliefs | None, alike: Tensor, settings: ExplorationSettings) -> Tensor:
    """Return the first member's best candidate of another text, (M,); without an ensemble, the next candidate.

    In Oat's variant, return the first different one among the second best candidates of `enn_max_try` members. If a
    member's two best candidates tie, the lower index is both its best and its second best.
    """
    if beliefs is None:
        return redraw_second(first, None, alike, settings)
    if settings.exp_law == "oat":
        runner_up = beliefs.rewards == beliefs.rewards.topk(2).values[..., 1:]
        seconds = _put_in_order(runner_up.int().argmax(2), beliefs.order)
        return find_first_unlike(first, seconds[:, : settings.enn_max_try], alike)
    rewards = beliefs.rewards[beliefs.order[:, 0], torch.arange(len(alike))]
    return rewards.masked_fill(~_differ_from(first, alike), -torch.inf).argmax(1)


def take_any_other(first: Tensor, alike: Tensor, chance: Tensor) -> Tensor:
    """Return a uniformly random candidate of another text, (M,), or `first` if there is none."""
    other = _differ_from(first, alike)
    wanted = chance % other.sum(1).clamp(min=1)
    found = (other.cumsum(1) > wanted[:, None]).int().argmax(1)
    return torch.where(other.any(1), found, first)


def pair_by_margin(implicit: Tensor, alike: Tensor | None = None) -> Tensor:
    """Pair the two candidates whose implicit rewards differ most: active preference learning (APL, arXiv:2402.08114).

    implicit: (M, N), log pi - log pi_ref of each candidate. Returns (M, 2), never the same candidate twice. With
    `alike`, (M, N), equal texts are paired only if there are no others.
    """
    margins = (implicit[:, :, None] - implicit[:, None, :]).abs()
    if alike is not None:
        margins = margins.masked_fill(~_differ_in_pairs(alike), -1)
    return _find_largest_pair(margins.masked_fill(torch.eye(implicit.shape[1], dtype=torch.bool), -2))


def keep_certain(margins: Tensor, keep: int) -> Tensor:
    """Keep the prompts whose two candidates differ most, the largest margin last. margins: (M,). Returns (keep,)."""
    return margins.abs().argsort(stable=True)[-keep:]


def keep_likely(logprobs: Tensor, keep: int) -> Tensor:
    """Keep the prompts whose candidates are likeliest on average (lowest entropy), the likeliest last.

    logprobs: (M, N), of whole candidates. Returns (keep,). Oat does so; APL's paper keeps the highest entropy.
    """
    return logprobs.mean(1).argsort(stable=True)[-keep:]


def _measure_disagreement(margins: Tensor, settings: ExplorationSettings) -> Tensor:
    """Return the unbiased variance over the members of the probability of winning by these margins. (E, ...) -> (...).

    In Oat's variant, it is the variance of the margins themselves.
    """
    assert len(margins) >= 2, f"{settings.exp_method} needs at least 2 members: one alone never disagrees"
    return (margins if settings.exp_law == "oat" else margins.sigmoid()).var(0)


def _put_in_order(choices: Tensor, order: Tensor) -> Tensor:
    """Reorder the members' choices, (E, M), as each prompt asks the members, (M, E)."""
    return choices.T.gather(1, order)


def _are_alike(pairs: Tensor, alike: Tensor) -> Tensor:
    """Return whether each pair is a clash, (M,)."""
    texts = alike.gather(1, pairs)
    return texts[:, 0] == texts[:, 1]


def _differ_from(first: Tensor, alike: Tensor) -> Tensor:
    """Return whether the text of each candidate differs from that of `first`, (M, N)."""
    return alike != alike.gather(1, first[:, None])


def _differ_in_pairs(alike: Tensor) -> Tensor:
    """Return whether the texts of two candidates differ, (M, N, N)."""
    return alike[:, :, None] != alike[:, None, :]


def _find_largest_pair(scores: Tensor) -> Tensor:
    """Return the pair with the largest score, the first of those that tie. (M, N, N) -> (M, 2)."""
    best = scores.flatten(1).argmax(1)
    return _stack_pairs(best // scores.shape[2], best % scores.shape[2])


def _stack_pairs(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], dim=1)


def _check_shape(given: Tensor, shape: tuple[int, ...], name: str) -> None:
    assert given.shape == shape, f"{name} has shape {tuple(given.shape)}, expected {shape}"
