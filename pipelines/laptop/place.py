"""Where an experiment on this machine lives: the home folder, its S3 server, and the URI of the ledger."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from oatflow.components.errors import RefusedInput

HOME = "OATFLOW_HOME"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def home_folder(given: Path | None) -> Path:
    """Return the folder for everything local: as given, else OATFLOW_HOME, else .oatflow right here."""
    return (given or Path(os.environ.get(HOME, ".oatflow"))).absolute()


def check_name(experiment: str) -> str:
    """Refuse a name that cannot be part of an object key, a pod or a label."""
    if not _NAME.fullmatch(experiment):
        raise RefusedInput(
            f"experiment={experiment!r}: use 1 to 63 lower-case letters, digits and '-', beginning and ending with a "
            "letter or digit"
        )
    return experiment


def experiment_uri(root: str, experiment: str) -> str:
    """Return the ledger URI of one experiment below a root such as ``s3://bucket/private/team/oatflow``."""
    parts = urlsplit(root)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(check_name(experiment))}"))


@contextmanager
def ledger_root(home: Path, given: str | None) -> Iterator[str]:
    """Give the URI under which experiments live: the one named by the user, else this machine's own S3 server.

    The server's credentials are put into this process's environment, where its children find them.
    """
    if given is not None:
        yield given
        return
    from .embedded_s3 import embedded_s3

    with embedded_s3(home) as server:
        before = dict(os.environ)
        os.environ.update(server.environment())
        try:
            yield server.uri("private/local/oatflow")
        finally:
            os.environ.clear()
            os.environ.update(before)
