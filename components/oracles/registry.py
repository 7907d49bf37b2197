"""The oracles, by name: where their settings are, and how they are opened.

A new oracle is one class and one entry in `ORACLES`. Settings are validated from here, so that nothing in this module
imports what an oracle needs to answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any, cast

from ..settings import Section
from .oracle import Circumstances, LoggedOracle, Oracle
from .settings import HumanSettings, JudgeSettings, PairRMSettings, RemoteSettings, ScorerSettings, SimulatedSettings

ORACLE_LOG = "OATFLOW_ORACLE_LOG"
"""Names a file to which each duel is appended before the oracle is asked about it."""


@dataclass(frozen=True, slots=True)
class OracleKind:
    """One kind of oracle.

    Attributes:
        section: Name of the section of its settings in `ExperimentSettings`; None if it has no settings.
        settings: Type of that section; `Section` if it has no settings.
        open: The class or function that opens it, `open(settings, circumstances)`, or its address,
            "package.module:name", which is imported on first use.
        required: The setting without which it cannot answer, if there is one.
        answers_at_once: Whether an answer follows its question. People answer between two runs.
        opens_anywhere: Whether any machine can open it. The known reward may be a function in one image alone.
        may_be_idle: Whether its settings may be given although another oracle is asked.
    """

    section: str | None
    settings: type[Section]
    open: Callable[[Any, Circumstances], Oracle] | str
    required: str | None = None
    answers_at_once: bool = True
    opens_anywhere: bool = True
    may_be_idle: bool = False


_HERE = "oatflow.components.oracles"

ORACLES: dict[str, OracleKind] = {
    "simulated": OracleKind(
        "simulated",
        SimulatedSettings,
        f"{_HERE}.simulated:open_simulated",
        opens_anywhere=False,
        may_be_idle=True,
    ),
    "pairrm": OracleKind("pairrm", PairRMSettings, f"{_HERE}.pairrm:PairRMOracle"),
    "scorer": OracleKind("scorer", ScorerSettings, f"{_HERE}.scorer:ScorerOracle", required="scorer_model"),
    "remote": OracleKind("remote", RemoteSettings, f"{_HERE}.remote:RemoteOracle", required="remote_url"),
    "judge": OracleKind("judge", JudgeSettings, f"{_HERE}.judge:JudgeOracle", required="judge_model"),
    "human": OracleKind(
        "human", HumanSettings, "oatflow.components.people.human_oracle:open_human", answers_at_once=False
    ),
}


def open_oracle(name: str, settings: Section, circumstances: Circumstances | None = None) -> Oracle:
    """Open the oracle of that name with its section of the settings.

    If OATFLOW_ORACLE_LOG names a file, every duel is appended to it before the oracle is asked about it.
    """
    kind = ORACLES[name]
    open_kind = resolve_name(kind.open) if isinstance(kind.open, str) else kind.open
    oracle: Oracle = open_kind(settings, circumstances or Circumstances())
    path = os.environ.get(ORACLE_LOG)
    return cast(Oracle, LoggedOracle(oracle, path)) if path else oracle
