"""The command line. Every setting of an experiment is a flag; `oatflow align --help` lists them by room."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oatflow.components.errors import OatflowError, RefusedInput, SettingsError
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.opening import has_begun
from oatflow.components.settings import did_you_mean
from oatflow.components.store.store import open_store

from .alignment.config import Setting, all_settings, gather, presets, read_preset
from .place import check_name, experiment_uri, home_folder, ledger_root

DEFAULT_PRESET = "reviews"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; an error is one line on standard error and an exit code (2: input refused, 3: claim held)."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        # A shell starts background commands deaf to Ctrl-C; and a polite end must stop what was started, too.
        signal.signal(stop, signal.default_int_handler)
    try:
        sys.exit(run(sys.argv[1:] if argv is None else argv))
    except OatflowError as error:
        print(f"oatflow: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\noatflow: stopped; run the same command again to continue", file=sys.stderr)
        sys.exit(INTERRUPTED)


def run(argv: Sequence[str]) -> int:
    """Parse and run one command; returns its exit code."""
    parser = _parser()
    given, unknown = parser.parse_known_args([_with_underscores(argument) for argument in argv])
    if unknown:
        _refuse_unknown(unknown, given.command)
    if given.command is None:
        parser.print_help()
        return RefusedInput.exit_code
    code: int = given.do(given)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oatflow", description="Align a language model online, with few labels.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _align_parser(commands)
    _ledger_parser(commands, "status", "what the ledger says of an experiment", _status, [
        ("--json", {"action": "store_true", "help": "print it as JSON"}),
        ("--verify", {"action": "store_true", "help": "read every object and compare its digest with the record"}),
    ])  # fmt: skip
    _ledger_parser(commands, "report", "write the HTML report of an experiment", _report, [
        ("--out", {"type": Path, "help": "file to write (default: HOME/reports/NAME.html)"}),
    ])  # fmt: skip
    _ledger_parser(commands, "benchmark", "where the time of one finished round went, step by step", _benchmark, [
        ("--round", {"type": int, "help": "which round (default: the last finished one)"}),
    ])  # fmt: skip
    doctor = _command(commands, "doctor", "check this installation and say what to do", _doctor)
    doctor.add_argument("--pretrain", default="oatflow:SmolLM2-135M-Instruct", help="model to check")
    compile_ = _command(commands, "compile", "write the pipeline as YAML, to upload in the Kubeflow UI", _compile)
    compile_.add_argument("--rounds", type=int, default=1, help="rounds that one run does, 1 to 10 (default: 1)")
    compile_.add_argument("--out", type=Path, default=Path("alignment.yaml"), help="file to write")
    return parser


def _align_parser(commands: Any) -> None:
    parser = _command(
        commands, "align", "align a model on this machine: begin an experiment, or carry one on", _align,
        usage="oatflow align [--experiment NAME | --new NAME] [--preset NAME] [--config FILE] [--SETTING VALUE ...]",
        epilog="Settings marked * may change while an experiment goes on; all others are frozen with its first round.",
    )  # fmt: skip
    name = parser.add_mutually_exclusive_group()
    name.add_argument("--experiment", default="demo", help="experiment to begin or to carry on (default: demo)")
    name.add_argument("--new", metavar="NAME", help="begin another experiment; refused if it exists")
    known = ", ".join(presets())
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, help=f"settings to start from: {known}, or none (default: {DEFAULT_PRESET})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, one mapping a room")
    parser.add_argument("--rounds", type=int, help="do at most so many rounds now")
    parser.add_argument("--cold", action="store_true", help="start the engine in every step, as a cluster does")
    shipped = read_preset(DEFAULT_PRESET)
    for room, settings in _by_room():
        group = parser.add_argument_group(f"{room} settings")
        for setting in settings:
            group.add_argument(
                f"--{setting.name}", metavar="VALUE", dest=f"setting:{setting.name}", help=_help(setting, shipped)
            )


def _by_room() -> Iterator[tuple[str, list[Setting]]]:
    rooms: dict[str, list[Setting]] = {}
    for setting in all_settings():
        rooms.setdefault(setting.room, []).append(setting)
    yield from rooms.items()


def _help(setting: Setting, shipped: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe a setting with its default, and what the default preset makes of it."""
    mark = "* " if setting.operational else ""
    default = "none" if setting.default in (None, "") else setting.default
    ours = shipped.get(setting.room, {}).get(setting.name)
    preset = "" if ours is None else f"; preset {DEFAULT_PRESET}: {ours}"
    return f"{mark}{setting.help} (default: {default}{preset})".replace("%", "%%")


def _with_underscores(argument: str) -> str:
    """Let a flag be written with dashes, too."""
    flag, equals, value = argument.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if argument.startswith("--") else argument


def _ledger_parser(commands: Any, name: str, help_: str, do: Any, options: list[tuple[str, dict[str, Any]]]) -> None:
    parser = _command(commands, name, help_, do)
    parser.add_argument("experiment", nargs="?", default="demo", help="name of the experiment (default: demo)")
    for flag, description in options:
        parser.add_argument(flag, **description)


def _command(commands: Any, name: str, help_: str, do: Any, **more: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_, description=help_[0].upper() + help_[1:] + ".", allow_abbrev=False, **more
    )
    parser.add_argument("--home", type=Path, help="folder for local data (default: OATFLOW_HOME, else ./.oatflow)")
    parser.add_argument("--ledger", help="store that holds the experiments, s3://bucket/prefix?endpoint=URL "
                        "(default: an S3 server of our own on this machine)")  # fmt: skip
    parser.set_defaults(do=do)
    return parser


def _refuse_unknown(unknown: list[str], command: str | None) -> None:
    flag = unknown[0].split("=")[0]
    if not flag.startswith("--"):
        raise SettingsError(f"{flag!r}: unexpected; see oatflow {command or ''} --help")
    name = flag.removeprefix("--").replace("-", "_")
    raise SettingsError(f"{name}: unknown setting; {did_you_mean(name, [setting.name for setting in all_settings()])}")


def _align(given: argparse.Namespace) -> int:
    from .align import Wish, align

    flags = {
        key.removeprefix("setting:"): value
        for key, value in vars(given).items()
        if key.startswith("setting:") and value is not None
    }
    if given.rounds is not None and given.rounds < 1:
        raise SettingsError(f"rounds={given.rounds}: do at least 1")
    settings = gather(None if given.preset == "none" else given.preset, given.config, flags)
    name = check_name(given.new or given.experiment)
    wish = Wish(name, bool(given.new), settings, home_folder(given.home), given.ledger, given.rounds, not given.cold)
    report = align(wish)
    print(f"Report: {report}")
    return 0


@contextmanager
def _existing(given: argparse.Namespace) -> Iterator[Ledger]:
    with ledger_root(home_folder(given.home), given.ledger) as root:
        store = open_store(experiment_uri(root, given.experiment))
        if not has_begun(store):
            raise RefusedInput(f"experiment={given.experiment!r}: there is none in {root}; `oatflow align` begins one")
        yield Ledger(store)


def _status(given: argparse.Namespace) -> int:
    from oatflow.components.reporting.curves import read_rounds

    from .display import Display
    from .status import describe, status

    with _existing(given) as ledger:
        report = status(ledger)
        if given.json:
            print(json.dumps(report, indent=2))
            return 0
        print(describe(report))
        Display.final_table(read_rounds(ledger))
        if given.verify:
            intact = sum(1 for _ in ledger.verify())
            print(f"verified {intact} objects: each is what was written")
    return 0


def _report(given: argparse.Namespace) -> int:
    from oatflow.components.reporting.page import write_report

    out = given.out or home_folder(given.home) / "reports" / f"{given.experiment}.html"
    with _existing(given) as ledger:
        html = write_report(ledger)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
    print(out)
    return 0


def _benchmark(given: argparse.Namespace) -> int:
    from .round_cost import print_round_cost

    with _existing(given) as ledger:
        last = ledger.head().round
        round_ = last if given.round is None else given.round
        if not 0 <= round_ <= last:
            raise RefusedInput(f"round={round_}: not finished; rounds 0 to {last} are")
        print_round_cost(ledger, round_)
    return 0


def _doctor(given: argparse.Namespace) -> int:
    from .doctor import examine

    failed = 0
    for finding in examine(home_folder(given.home), given.ledger, given.pretrain):
        failed += not finding.ok
        print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check}: {finding.found}")
        if not finding.ok:
            print(f"      -> {finding.advice}")
    print("all is well" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


def _compile(given: argparse.Namespace) -> int:
    from .alignment.pipeline import compile_pipeline

    compile_pipeline(given.rounds, given.out)
    print(given.out)
    return 0


if __name__ == "__main__":
    main()
