"""Active preference learning (APL, arXiv:2402.08114): the policy's own likelihoods choose the prompts to label.

M prompts, N candidates each. A candidate's implicit reward is log pi - log pi_ref, over all of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..records.records import Candidate
from .informed import find_alike
from .selection import Chance, Pick
from .settings import ExplorationSettings
from .strategies import keep_certain, keep_likely, pair_by_margin, pair_first_two, repair_clashes


def pick_by_margin(
    groups: Sequence[Sequence[Candidate]], settings: ExplorationSettings, chance: Chance
) -> list[Pick | None]:
    """Pick two candidates of each prompt to be labelled; the other prompts get no duel."""
    logprobs, implicit = read_logprobs(groups)
    keep = settings.count_duels(len(groups))
    if settings.apl_certainty_only:
        pairs = pair_first_two(len(groups))
        kept = keep_certain(implicit.gather(1, pairs).diff(dim=1)[:, 0], keep)
    else:
        # A redraw takes the next best pair.
        redraws = settings.on_clash in ("redraw", "second_best")
        pairs = pair_by_margin(implicit, find_alike(groups) if redraws else None)
        kept = keep_likely(logprobs, keep)
    seeds = torch.tensor([chance(drawn[0].prompt_id, "clash") for drawn in groups])
    pairs, may = repair_clashes(pairs, None, find_alike(groups), seeds, settings)
    may &= torch.zeros_like(may).index_fill(0, kept, True)
    duels = zip(pairs.tolist(), may.tolist(), strict=True)
    return [Pick(first, second, settings.exp_method) if picked else None for (first, second), picked in duels]


def read_logprobs(groups: Sequence[Sequence[Candidate]]) -> tuple[Tensor, Tensor]:
    """Return the candidates' log-probabilities under the policy, and their implicit rewards, both (M, N)."""
    both = [[(drawn.logprob, drawn.reference_logprob) for drawn in group] for group in groups]
    policy, reference = torch.tensor(both, dtype=torch.float64).unbind(-1)
    return policy, policy - reference
