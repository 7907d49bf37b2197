"""`oatflow serve-reward-model`: a reward model behind HTTP, for many experiments to ask."""

from __future__ import annotations

import argparse
from typing import Any

from oatflow.components.oracles.settings import ScorerSettings
from oatflow.components.reward_server.settings import ServerSettings
from oatflow.components.settings import Section

from ..flags import command

_SECTIONS: tuple[type[Section], ...] = (ScorerSettings, ServerSettings)


def serve_parser(commands: Any) -> None:
    """Add `oatflow serve-reward-model`."""
    parser = command(
        commands, "serve-reward-model", "serve a reward model over HTTP, as the oracle of many experiments", _serve,
        local=False, epilog="Clients need the token that OATFLOW_ORACLE_TOKEN holds. Ours and Oat's clients can ask.",
    )  # fmt: skip
    for section in _SECTIONS:
        for name, field in section.model_fields.items():
            help_ = f"{field.description} (default: {field.default if field.default != '' else 'none'})"
            parser.add_argument(f"--{name}", metavar="VALUE", help=help_.replace("%", "%%").replace("\n", " "))
    parser.add_argument("--no_token", action="store_true", help="let everybody ask who reaches the port")


def _serve(given: argparse.Namespace) -> int:
    from oatflow.components.reward_server.serving import read_token, serve_model

    scorer = ScorerSettings.parse(_read_given(given, ScorerSettings))
    settings = ServerSettings.parse(_read_given(given, ServerSettings))
    serve_model(scorer, settings, read_token(wanted=not given.no_token), lambda line: print(line, flush=True))
    return 0


def _read_given(given: argparse.Namespace, section: type[Section]) -> dict[str, str]:
    return {name: value for name in section.model_fields if (value := getattr(given, name)) is not None}
