"""`oatflow align`: run an experiment's next rounds on this machine, under kfp.local."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oatflow.components.errors import LabelsInDoubt, OatflowError, RefusedInput, StoreError, WaitingForLabels
from oatflow.components.ledger import owner
from oatflow.components.ledger.claim import refuse_while_held
from oatflow.components.ledger.ledger import PATIENCE, Ledger
from oatflow.components.model_folder import MODELS
from oatflow.components.number_format import float32_notice
from oatflow.components.oracles.registry import ORACLES, open_oracle
from oatflow.components.people.missing_answers import explain_labelling
from oatflow.components.policy.starting_model import find_starting_model
from oatflow.components.progress import PROGRESS_FILE
from oatflow.components.reporting.curves import read_rounds
from oatflow.components.reporting.page import write_report
from oatflow.components.rounds.alarms import find_alarm
from oatflow.components.rounds.annotation_files import read_batch, read_missing_answers
from oatflow.components.rounds.beginning import begin_experiment, check_inputs, has_begun
from oatflow.components.rounds.ending import find_end
from oatflow.components.rounds.experiment import ExperimentSettings, refuse_changes
from oatflow.components.rounds.opening import waits_for_people
from oatflow.components.rounds.planning import keep_raised_budget, queries_before
from oatflow.components.step_ending import ABOVE, BUG, PREFIX
from oatflow.components.store.files import write_whole
from oatflow.components.store.setting_stores import SettingStores
from oatflow.components.store.store import open_store

from ..alignment.build import Build
from ..alignment.form import form_arguments
from ..alignment.pipeline import MOST_ROUNDS, compile_pipeline
from ..data.ledger_status import describe_prompts
from .display import Display
from .place import experiment_uri, ledger_root
from .scratch import make_scratch

POLL_SECONDS = 0.2
GRACE_SECONDS = 15
# Nothing is retried here: whoever runs the command sees why a step failed, and runs it again.
THIS_MACHINE = Build(train_backend="local", gpu=False, retries=0)


class PipelineFailed(OatflowError):
    """The pipeline ended without finishing its rounds."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for. `rounds`: at most so many now; `new`: the experiment must not exist yet."""

    experiment: str
    new: bool
    settings: ExperimentSettings
    home: Path
    ledger: str | None
    rounds: int | None
    warm: bool


def place_defaults(ledger: str | None) -> dict[str, Any]:
    """Return the defaults that this machine has for settings; `ledger`: the store that the user named, if any.

    A process that died here is seen at once, so its claim need not hold for long. The machine's own store does not
    come back by itself: whoever runs the command starts it again with the next one.
    """
    return {"lease_seconds": 60.0} | ({} if ledger else {"store_patience_seconds": 30.0})


def on_this_machine(settings: ExperimentSettings) -> ExperimentSettings:
    """Train here, whatever settings written for a cluster say; that changes nothing of what is learned."""
    jobs = settings.jobs.model_copy(update={"train_backend": "local", "train_pods": 1})
    return settings.model_copy(update={"jobs": jobs})


def align(wish: Wish) -> Path:
    """Carry the experiment on until its budget is spent (or for `wish.rounds` rounds); returns the report's path.

    Raises what the steps raise, in one line; whatever was started is stopped again, also on Ctrl-C.
    """
    os.environ[MODELS] = str(wish.home / "models")
    _build_starting_model(wish)
    with ledger_root(wish.home, wish.ledger) as root:
        uri = experiment_uri(root, wish.experiment)
        _check_wish(wish, uri)
        wish = replace(wish, settings=keep_raised_budget(Ledger(open_store(uri)), wish.settings))
        alarm = _run_until_alarm(wish, uri)
        ledger = Ledger(open_store(uri))
        report = _write_results(wish, ledger)
        if alarm:
            raise LabelsInDoubt(alarm)
        _tell_why_it_ended(wish, ledger)
        return report


def _build_starting_model(wish: Wish) -> None:
    if wish.settings.policy.pretrain.startswith("oatflow:"):
        from .starting_model import find_smollm2

        find_smollm2(wish.home)


def _check_wish(wish: Wish, uri: str) -> None:
    """Refuse what cannot work before anything is written; begin the experiment if it is new."""
    ledger = Ledger(open_store(uri))
    if not has_begun(ledger):
        for name, section in wish.settings.oracles.items():
            if not ORACLES[name].opens_anywhere:
                open_oracle(name, section)
        inputs = check_inputs(wish.settings, SettingStores(uri))
        kept = {split: len(prompts) for split, prompts in inputs.prompts.items()}
        print(describe_prompts(kept, inputs.dropped), flush=True)
        begin_experiment(ledger, wish.settings, inputs)
        return
    if wish.new:
        raise RefusedInput(f"new={wish.experiment!r}: that experiment exists; choose another name, or continue it with "
                           f"--experiment {wish.experiment}")  # fmt: skip
    refuse_changes(ledger.experiment.settings, wish.settings, wish.experiment)
    refuse_while_held(ledger.store, ledger.read_head().round + 1, "", owner.this_process())


def _run_until_alarm(wish: Wish, uri: str) -> str | None:
    """Run the experiment's next rounds; returns what is wrong with the last one's labels, if that stopped it."""
    try:
        _run_rounds(wish, uri)
    except PipelineFailed as failed:
        try:
            ledger = Ledger(open_store(uri))
            alarm = find_alarm(ledger, ledger.read_head().round, wish.settings)
        except StoreError:
            raise failed from None  # its line says that the store is gone
        if alarm:
            return alarm
        raise
    return None


def _count_rounds(wish: Wish, uri: str, until: int | None) -> int:
    """Return how many rounds can be run now: as many as the budget pays for without a clash; 0 where none can.

    `until`: how many rounds the experiment may have at the end of this run.
    """
    ledger = Ledger(open_store(uri))
    round_ = ledger.read_head().round + 1
    if find_end(ledger, round_, wish.settings) or waits_for_people(ledger, round_, wish.settings):
        return 0
    if alarm := find_alarm(ledger, round_ - 1, wish.settings):
        raise LabelsInDoubt(alarm)
    left = wish.settings.labeling.max_queries - queries_before(ledger, round_)
    planned = wish.settings.plan_rounds(round_, left)
    return max(0, (planned if until is None else min(planned, until)) - round_)


def _run_rounds(wish: Wish, uri: str) -> None:
    """Run the experiment's next rounds, in runs of the pipeline: clashes save queries, which pay for further ones."""
    begun = Ledger(open_store(uri)).read_head().round + 1
    until = None if wish.rounds is None else begun + wish.rounds
    rounds = _count_rounds(wish, uri, until)
    if not rounds:
        return
    logs = wish.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # Two runs may begin in the same second.
    stem = f"{wish.experiment}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    progress, log = logs / f"{stem}.progress.jsonl", logs / f"{stem}.log"
    progress.touch()
    # A reward of the user's own is imported from where the command runs.
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    environment = {
        PROGRESS_FILE: str(progress), "PYTHONPATH": path, **owner.environment_of(owner.this_process()),
        PATIENCE: str(wish.settings.ledger.store_patience_seconds),
    }  # fmt: skip
    if wish.settings.sampling.engine == "vllm" and (notice := float32_notice()):
        print(notice, flush=True)
    budget = None if wish.settings.prompts.offline else wish.settings.labeling.max_queries
    learns_rewards = wish.settings.learns_rewards
    display = Display(wish.experiment, begun + rounds, budget, progress, learns_rewards=learns_rewards, most=until)
    with ExitStack() as stack:
        display.start()
        stack.callback(display.stop)
        scratch = stack.enter_context(make_scratch(wish.home / "tmp"))
        environment["TMPDIR"] = str(scratch)
        environment |= stack.enter_context(_warm_engine(wish, uri, logs / stem))
        while rounds:
            before = Ledger(open_store(uri)).read_head().round
            _run_pipeline(wish, uri, min(rounds, MOST_ROUNDS), environment, scratch, log, progress, display)
            # A run that closes no round has nothing to do, whatever it waits for.
            is_stuck = Ledger(open_store(uri)).read_head().round == before
            rounds = 0 if is_stuck else _count_rounds(wish, uri, until)


@contextmanager
def _warm_engine(wish: Wish, uri: str, logs: Path) -> Iterator[Mapping[str, str]]:
    """Keep one engine loaded for all steps of this machine: starting it anew for each would take most of the time."""
    if wish.settings.sampling.engine != "vllm" or not wish.warm or not wish.settings.generates:
        yield {}
        return
    from oatflow.components.sampling.warm_engine import start_warm_engine

    ledger, policy = Ledger(open_store(uri)), wish.settings.policy
    folder = find_starting_model(policy, ledger.setting_stores)
    digest, trusted = ledger.experiment.starting_model, policy.trust_remote_code
    engine = start_warm_engine(wish.settings.sampling, folder, digest, logs, trusted)
    try:
        yield engine.environment()
    finally:
        engine.stop()


def _run_pipeline(
    wish: Wish,
    uri: str,
    rounds: int,
    environment: Mapping[str, str],
    scratch: Path,
    log: Path,
    progress: Path,
    display: Display,
) -> None:
    pipeline = scratch / f"alignment-{rounds}.yaml"
    compile_pipeline(rounds, pipeline, THIS_MACHINE)
    arguments = form_arguments(uri, wish.settings)
    command = [sys.executable, "-m", "oatflow.pipelines.laptop.local_run", "--pipeline", str(pipeline),
               "--arguments", json.dumps(arguments), "--outputs", str(wish.home / "outputs")]  # fmt: skip
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
    try:
        while child.poll() is None:
            display.poll()
            time.sleep(POLL_SECONDS)
        display.poll()
    finally:
        _end_child(child)
    if child.returncode:
        raise _explain_failure(progress, log, child.returncode, uri)


def _end_child(child: subprocess.Popen[bytes]) -> None:
    """End the pipeline and its steps, politely first."""
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, signal_)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _explain_failure(progress: Path, log: Path, returncode: int, uri: str) -> OatflowError:
    """Return why the pipeline failed, in one line: what the failed step reported, else what its log or the store says.

    A step that was killed reports nothing, and what KFP says of it then names no cause.
    """
    events = [json.loads(line) for line in progress.read_text().splitlines()]
    reported: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "failed"), {})
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    sentence = next((line.removeprefix(PREFIX) for line in reversed(lines) if line.startswith(PREFIX)), "")
    if reported and not sentence.startswith(BUG):
        sentence = reported["error"].splitlines()[0]
    if reported:
        reason = f"{reported['step']} failed in round {reported['round']}: {sentence}"
    else:
        # A step that fails before it holds its claim says why in the log alone.
        reason = sentence or _describe_silent_end(events, uri) or f"the pipeline ended with status {returncode}"
    return PipelineFailed(
        f"{reason.replace(ABOVE, 'the log')} (log: {log}). Run the same command again to continue.",
        reported.get("exit_code", 1),
    )


def _describe_silent_end(events: Sequence[Mapping[str, Any]], uri: str) -> str:
    """Return what is known of a run whose failed step said nothing: the store is gone, or the step was killed."""
    try:
        Ledger(open_store(uri)).read_head()
    except StoreError as error:
        return f"the store is gone: {error}"
    started = [event for event in events if event["event"] == "start"]
    ended = {(event["step"], event["round"]) for event in events if event["event"] == "end"}
    if not started or (started[-1]["step"], started[-1]["round"]) in ended:
        return ""
    return f"{started[-1]['step']} of round {started[-1]['round']} was killed; was the machine out of memory?"


def _tell_why_it_ended(wish: Wish, ledger: Ledger) -> None:
    """Raise `WaitingForLabels` where people must answer first; say so where the experiment has ended."""
    round_ = ledger.read_head().round + 1
    if end := find_end(ledger, round_, wish.settings):
        print(end)
    elif wish.settings.asks_people:
        missing, asked = read_missing_answers(ledger, round_, wish.settings.human), read_batch(ledger, round_)
        if missing.by_duel and asked:
            raise WaitingForLabels(f"round {round_} is waiting for labels: {missing}. {explain_labelling(asked)}")


def _write_results(wish: Wish, ledger: Ledger) -> Path:
    report = wish.home / "reports" / f"{wish.experiment}.html"
    write_whole(report, write_report(ledger).encode())
    Display.final_table(read_rounds(ledger))
    return report
