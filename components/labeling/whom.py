"""Whom an experiment asks, and what of it is answered and paid already."""

from __future__ import annotations

from collections.abc import Sequence

from .. import progress
from ..ledger import layout
from ..ledger.ledger import Ledger
from ..ledger.step import Step
from ..oracles.oracle import ORACLES, Circumstances, Oracle, Say, open_oracle
from ..prompts.settings import PromptSettings
from ..records.records import Duel, Preference
from ..records.table import from_parts
from .asking import answers_of
from .settings import LabelingSettings


def oracle_of(ledger: Ledger, room: str, round_: int, name: str = "") -> Oracle:
    """Open the oracle of that name, or the one that gives the labels; it tells that it waits as the step of `room`."""
    labeling = ledger.section(LabelingSettings, "labeling")
    name = name or labeling.preference_oracle
    kind = ORACLES[name]
    settings = labeling if kind.section == "labeling" else ledger.section(kind.settings, kind.section)
    return open_oracle(name, settings, Circumstances(ledger.seed, _tell(room, round_), ledger.setting_stores))


def answered_before(step: Step, duels: Sequence[Duel]) -> dict[str, Preference]:
    """Return what the oracle said of these duels in earlier rounds: possible only where prompts come round again."""
    size = step.ledger.section(PromptSettings, "prompts").rollout_batch_size
    texts = [prompt.text for prompt in step.ledger.train_prompts()] if step.round else []
    if (step.round + 1) * size <= len(texts) == len(set(texts)) or not step.round:
        return {}
    return earlier_answers(step, "labeling", "preferences", range(step.round), duels)


def earlier_answers(
    step: Step, room: str, prefix: str, rounds: Sequence[int], duels: Sequence[Duel]
) -> dict[str, Preference]:
    """Return the oracle's answers to these duels in the outputs ``PREFIX-...`` of those rounds: inputs of this step."""
    wanted = {duel.duel_id for duel in duels}
    found: dict[str, Preference] = {}
    # The newest first: an answer that stayed as it was is in the round before.
    for round_ in reversed(rounds):
        if wanted <= found.keys():
            break
        done = step.ledger.done(round_, room)
        names = [placed.name for placed in done.outputs if placed.name.startswith(f"{prefix}-")] if done else []
        rows = answers_of(from_parts((step.ledger.read(round_, room, name) for name in names), Preference, prefix))
        if useful := {name: row for name, row in rows.items() if name in wanted - found.keys()}:
            step.read_parts(room, f"{prefix}-", round_=round_)
            found |= useful
    return found


def spent_before(ledger: Ledger, round_: int) -> float:
    """Add up what the oracle cost until now: all steps of earlier rounds, and those of this one that are done."""
    marks = (ledger.done(each, room) for each in range(round_ + 1) for room in ("labeling", "evaluation"))
    return sum(float(mark.facts.get("cost", 0.0)) for mark in marks if mark)


def _tell(room: str, round_: int) -> Say:
    return lambda line: progress.tell(layout.STEPS[room], round_, "waits", why=line)
