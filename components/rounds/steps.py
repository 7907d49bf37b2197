"""The steps of a round on the ledger: each adopts what is done, does its line of the program, and is marked done."""

from __future__ import annotations

from .. import progress
from ..errors import WaitingForLabels
from ..labeling.missing import describe_missing
from ..labeling.queries import SPENDING_LIMIT
from ..ledger.claim import release_claim
from ..ledger.done import Done
from ..ledger.ledger import Ledger
from ..records.plan import STARTING_MODEL
from .experiment import ExperimentSettings, read_settings
from .inputs import Round
from .round import STEP_PROGRAMS
from .tools import LedgerTools
from .train_step import launch_training


def run_sampling(ledger: Ledger, round_: int, run: str) -> Done:
    """Draw the round's candidates and pick its duels."""
    return run_step(ledger, round_, "sampling", run)


def run_labeling(ledger: Ledger, round_: int, run: str) -> Done:
    """Ask the oracle about the round's duels. Raises `WaitingForLabels` if people have not answered yet."""
    return run_step(ledger, round_, "labeling", run)


def label_or_wait(ledger: Ledger, round_: int, run: str) -> bool:
    """Run the labeling step; returns False if people have not answered yet. Then any run may carry the round on."""
    try:
        run_labeling(ledger, round_, run)
    except WaitingForLabels as waiting:
        print(waiting, flush=True)
        release_claim(ledger.store, round_, run)
        return False
    return True


def run_train(ledger: Ledger, round_: int, run: str) -> Done:
    """Train the round's policy, in a training job unless none is needed. Raises `TrainingFailed`."""
    policy = read_settings(ledger.experiment.settings, {}).policy
    if policy.learn_rm_only or policy.trainer == "scripted":
        return run_step(ledger, round_, "policy", run)
    return launch_training(ledger, round_, run)


def run_fit(ledger: Ledger, round_: int, run: str) -> Done:
    """Fit the reward model to the round's preferences."""
    return run_step(ledger, round_, "reward_model", run)


def run_evaluation(ledger: Ledger, round_: int, run: str) -> Done:
    """Measure the round's policy and its duels."""
    return run_step(ledger, round_, "evaluation", run)


def run_step(ledger: Ledger, round_: int, room: str, run: str) -> Done:
    """Do one step of a round as `run`, which must hold the round's claim, and mark it done.

    If an earlier attempt finished the step, its mark is returned and nothing is done.
    """
    with ledger.open_step(round_, room, run) as step:
        if step.done is not None:
            return step.done
        step.begin_work()
        settings = read_settings(ledger.experiment.settings, step.claim.operational)
        report = STEP_PROGRAMS[room](
            gather_round(ledger, round_, settings), LedgerTools(step, settings).as_tools(), step
        )
        if SPENDING_LIMIT in report.facts:
            progress.report_note(
                f"round {round_}: judge.judge_spending_limit={report.facts[SPENDING_LIMIT]:g} is reached, which leaves "
                f"{describe_missing(report.counts)}; raise it (--judge_spending_limit) to go on with the next round"
            )
        return step.report_done(report)


def gather_round(ledger: Ledger, round_: int, settings: ExperimentSettings) -> Round:
    """Return what a round is given, from its plan on the ledger."""
    return Round(
        plan=ledger.read_plan(round_),
        settings=settings,
        starting_model=ledger.policy_after(STARTING_MODEL),
        read_prompt_set=ledger.train_prompts,
        read_held_out=ledger.eval_prompts,
    )
