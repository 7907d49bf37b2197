"""What all pages have in common: one self-contained file each, with its style and a small script inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import words

HERE = Path(__file__).parent
_FILTERS = ("percent", "rounded", "count", "duration")


def render_page(
    template: str, folder: Path = HERE, filters: Mapping[str, Callable[..., Any]] | None = None, **shown: Any
) -> str:
    """Fill a template of `folder` that extends `layout.html`; every text is escaped. `filters`: besides the usual ones.

    The page runs one script, which its policy knows by digest, so that nothing that an experiment says can run. A
    frame that forbids scripts shows everything all the same.
    """
    environment = Environment(
        loader=FileSystemLoader((folder, HERE)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in _FILTERS} | {
        "data_link": data_link,
        **(filters or {}),
    }
    script = (HERE / "page.js").read_text(encoding="utf-8")
    return environment.get_template(template).render(
        script=Markup(script), script_digest=_script_digest(script), **shown
    )


def data_link(csv: str) -> str:
    """Return a link that holds a table itself, since a page has no server to ask."""
    return "data:text/csv;charset=utf-8," + quote(csv, safe=",.-")


def _script_digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
