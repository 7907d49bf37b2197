"""Every command: its flags, and what it does. Every setting of an experiment is a flag of `align`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, get_args

from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.images import REGISTRY
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.settings import did_you_mean

from .alignment.build import Backend, Build
from .alignment.config import all_settings
from .cluster.commands import cluster_status, schedule_parser, submit_parser
from .data.audit import audit_parser
from .data.export import DTYPES
from .data.preferences import FORMATS
from .data.report import open_existing, report_parser
from .data.simulate import simulate_parser
from .doctor_command import doctor_parser
from .flags import Flag, add_flags, command, given_settings, optional_host, settings_flags
from .laptop.place import check_name, home_folder, ledger_root
from .laptop.serve import serve_parser
from .people.label_command import FLAGS as LABEL_FLAGS


def run_command(argv: Sequence[str]) -> int:
    """Parse and run one command; returns its exit code."""
    parser = make_parser()
    given, unknown = parser.parse_known_args([_with_underscores(argument) for argument in argv])
    if unknown:
        _refuse_unknown(unknown, given.command)
    if given.command is None:
        parser.print_help()
        return RefusedInput.exit_code
    # A reward of the user's own is imported from where the command runs; last, so that it hides no package.
    sys.path.append(str(Path.cwd()))
    code: int = given.do(given)
    return code


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of ours."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was given."""
        raise RefusedInput(f"{message}; see {self.prog} --help")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneLineParser(
        prog="oatflow", description="Align a language model online, with few labels.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _align_parser(commands)
    submit_parser(commands)
    schedule_parser(commands)
    shows = "show the rounds of an experiment and, with --host, its runs on a cluster"
    _ledger_parser(commands, "status", shows, _status, [
        ("--json", {"action": "store_true", "help": "print it as JSON"}),
        ("--verify", {"action": "store_true", "help": "read every object and compare its digest with the record"}),
        ("--run", {"metavar": "ID", "help": "on a cluster: show this run (default: the last runs)"}),
        optional_host(", --namespace and --run", "only the ledger is read"),
        ("--namespace", {"help": "namespace of the runs, where Kubeflow has one for each user (default for pods and "
                         "workflows: that of the experiment, else that of KFP's schedules, else that of the "
                         "kubeconfig's context, then kubeflow)"}),
    ])  # fmt: skip
    report_parser(commands)
    _ledger_parser(
        commands, "label", "give the duels of a waiting round to people, and add their answers", _label, LABEL_FLAGS
    )
    _ledger_parser(commands, "benchmark", "where the time of one finished round went, step by step", _benchmark, [
        ("--round", {"type": int, "help": "which round (default: the last finished one)"}),
    ])  # fmt: skip
    _ledger_parser(commands, "export", "write the policy of one finished round as a transformers folder", _export, [
        ("--round", {"type": int, "help": "which round (default: the last finished one)"}),
        ("--out", {"type": Path, "metavar": "DIR",
                   "help": "folder to write, new or empty (default: HOME/exports/NAME-round-N)"}),
        ("--adapter", {"action": "store_true", "help": "the LoRA adapter alone, without the model that it belongs to"}),
        ("--dtype", {"choices": DTYPES, "default": DTYPES[0],
                     "help": "number format of the weights; training keeps float32, and bfloat16 is what engines serve "
                     f"and half as large (default: {DTYPES[0]})"}),
    ])  # fmt: skip
    _ledger_parser(
        commands, "export-preferences", "write the preferences of finished rounds as a data set", _export_preferences, [
        ("--round", {"type": int, "help": "one round (default: all finished ones)"}),
        ("--out", {"type": Path, "metavar": "DIR",
                   "help": "folder to write, new or empty (default: HOME/exports/NAME-preferences)"}),
        ("--format", {"choices": FORMATS, "default": FORMATS[0], "help": f"file format (default: {FORMATS[0]})"}),
        ("--messages", {"action": "store_true",
                        "help": "prompt and answers as chat messages, as TRL's templates take them"}),
    ])  # fmt: skip
    _ledger_parser(commands, "pool", "write an experiment's candidates and known rewards, to simulate on", _pool, [
        ("--out", {"type": Path, "metavar": "FILE", "help": "file to write (default: HOME/pools/NAME.safetensors)"}),
    ])  # fmt: skip
    simulate_parser(commands)
    audit_parser(commands)
    serve_parser(commands)
    doctor_parser(commands)
    compile_ = command(commands, "compile", "write the pipeline as YAML, to upload in the Kubeflow UI", _compile)
    compile_.add_argument("--rounds", type=int, default=1, help="rounds that one run does, 1 to 10 (default: 1)")
    compile_.add_argument("--out", type=Path, default=Path("alignment.yaml"), help="file to write")
    compile_.add_argument("--train_backend", choices=get_args(Backend), default="pytorchjob",
                          help="what trains; local: the train step itself (default: pytorchjob)")  # fmt: skip
    compile_.add_argument("--cpu", action="store_true", help="for nodes without GPUs: the images without CUDA")
    compile_.add_argument("--registry", default=REGISTRY, help=f"where the images lie (default: {REGISTRY})")
    compile_.add_argument("--image_pull_secret", action="append", default=[], metavar="NAME",
                          help="secret that images are pulled with; may be given again")  # fmt: skip
    compile_.add_argument("--retries", type=int, default=2, help="how often a step is tried again (default: 2)")
    return parser


def _align_parser(commands: Any) -> None:
    parser = command(
        commands, "align", "align a model on this machine: begin an experiment, or carry one on", _align,
        add_help=False, usage="oatflow align [--experiment NAME | --new NAME] [--SETTING VALUE ...]",
    )  # fmt: skip
    name = parser.add_mutually_exclusive_group()
    name.add_argument(
        "--experiment", metavar="NAME", default="demo", help="experiment to begin or to carry on (default: demo)"
    )
    name.add_argument("--new", metavar="NAME", help="begin another experiment; refused if it exists")
    parser.add_argument("--rounds", type=int, metavar="K", help="do at most so many rounds now")
    parser.add_argument("--cold", action="store_true", help="start the engine in every step, as a cluster does")
    settings_flags(parser)


def _with_underscores(argument: str) -> str:
    """Let a flag be written with dashes, too."""
    flag, equals, value = argument.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if argument.startswith("--") else argument


def _ledger_parser(commands: Any, name: str, help_: str, do: Any, options: list[Flag]) -> None:
    parser = command(commands, name, help_, do)
    parser.add_argument("experiment", nargs="?", default="demo", help="name of the experiment (default: demo)")
    add_flags(parser, options)


def _refuse_unknown(unknown: list[str], command: str | None) -> None:
    flag = unknown[0].split("=")[0]
    if not flag.startswith("--"):
        raise SettingsError(f"{flag!r}: unexpected; see oatflow {command or ''} --help")
    name = flag.removeprefix("--").replace("-", "_")
    raise SettingsError(f"{name}: unknown setting; {did_you_mean(name, [setting.name for setting in all_settings()])}")


def _align(given: argparse.Namespace) -> int:
    from .laptop.align import Wish, align, on_this_machine, place_defaults

    if given.rounds is not None and given.rounds < 1:
        raise SettingsError(f"rounds={given.rounds}: do at least 1")
    settings = on_this_machine(given_settings(given, place_defaults(given.ledger)))
    name = check_name(given.new or given.experiment)
    wish = Wish(name, bool(given.new), settings, home_folder(given.home), given.ledger, given.rounds, not given.cold)
    report = align(wish)
    print(f"Report: {report}")
    return 0


@contextmanager
def _existing(given: argparse.Namespace) -> Iterator[Ledger]:
    with ledger_root(home_folder(given.home), given.ledger) as root:
        yield open_existing(root, given.experiment)


def _status(given: argparse.Namespace) -> int:
    if given.host or given.namespace or given.run:
        return cluster_status(given)
    from oatflow.components.reporting.curves import read_rounds

    from .data.ledger_status import describe_queries, describe_status, status
    from .laptop.display import Display

    with _existing(given) as ledger:
        report = status(ledger)
        if given.json:
            print(json.dumps(report, indent=2))
            return 0
        print(describe_status(report))
        rows = read_rounds(ledger)
        Display.final_table(rows)
        if rows and report["preferences"] is None:
            print(describe_queries(rows))
        if given.verify:
            intact = sum(1 for _ in ledger.verify_objects())
            print(f"verified {intact} objects: each is what was written")
    return 0


def _label(given: argparse.Namespace) -> int:
    from .people.label_command import LabelOptions, label_round

    options = LabelOptions(given.out, given.answers, given.annotator, given.serve, given.port)
    with _existing(given) as ledger:
        return label_round(ledger, given.experiment, home_folder(given.home), options)


def _benchmark(given: argparse.Namespace) -> int:
    from .data.round_cost import print_round_cost

    with _existing(given) as ledger:
        print_round_cost(ledger, _finished_round(ledger, given.round))
    return 0


def _export(given: argparse.Namespace) -> int:
    from .data.export import check_folder, export_policy

    with _existing(given) as ledger:
        round_ = _finished_round(ledger, given.round)
        name = f"{given.experiment}-round-{round_}{'-adapter' if given.adapter else ''}"
        out = check_folder(given.out or home_folder(given.home) / "exports" / name)
        print(export_policy(ledger, round_, out, given.dtype, given.adapter))
    print(out)
    return 0


def _export_preferences(given: argparse.Namespace) -> int:
    from .data.export import check_folder
    from .data.preferences import export_preferences

    with _existing(given) as ledger:
        last = _finished_round(ledger, given.round)
        rounds = range(last + 1) if given.round is None else range(last, last + 1)
        out = check_folder(given.out or home_folder(given.home) / "exports" / f"{given.experiment}-preferences")
        print(export_preferences(ledger, rounds, out, given.format, given.messages))
    print(out)
    return 0


def _pool(given: argparse.Namespace) -> int:
    from oatflow.components.simulator.pool import pool_to_bytes

    from .data.pool_of_experiment import pool_of

    with _existing(given) as ledger:
        _finished_round(ledger, None)
        out: Path = given.out or home_folder(given.home) / "pools" / f"{given.experiment}.safetensors"
        pool = pool_of(ledger)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(pool_to_bytes(pool))
    prompts, candidates, features = pool.features.shape
    print(f"{prompts} prompts with {candidates} candidates of {features} features: {pool.source}")
    print(out)
    return 0


def _finished_round(ledger: Ledger, wanted: int | None) -> int:
    """Return the round that was asked for, or the last, if it is finished."""
    last = ledger.read_head().round
    if last < 0:
        raise RefusedInput("no round of this experiment is finished yet; `oatflow align` does the first")
    round_ = last if wanted is None else wanted
    if not 0 <= round_ <= last:
        raise RefusedInput(f"round={round_}: not finished; {'round 0 is' if not last else f'rounds 0 to {last} are'}")
    return round_


def _compile(given: argparse.Namespace) -> int:
    from .alignment.pipeline import compile_pipeline

    secrets = tuple(given.image_pull_secret)
    build = Build(given.train_backend, not given.cpu, given.registry, given.retries, secrets)
    compile_pipeline(given.rounds, given.out, build)
    print(given.out)
    return 0
