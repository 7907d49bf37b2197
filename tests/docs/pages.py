"""The pages that people read, cut into their blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {
        path
        for pattern in ("*.md", "*/README.md", "pipelines/*.md", "components/**/*.md", "manifests/**/*.md")
        for path in ROOT.glob(pattern)
        if not path.relative_to(ROOT).parts[0].startswith(".")
    }
)
KINDS = ("runs", "needs", "as in", "shows", "file")
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (?P<kind>runs|shows|needs|as in|file)(?:: (?P<value>[^>]+))? -->")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ENDS = {";", "&&", "||", "|", "&", ")", "do", "done", ">"}


@dataclass(frozen=True)
class Block:
    """A fenced block, with what the comment before it says of it."""

    page: str
    line: int
    language: str
    text: str
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [_block(name_of(page), text, match) for match in _BLOCK.finditer(text)]


def fences_of(page: Path) -> int:
    """How many blocks there must be: every fence opens or closes one."""
    return len(re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)) // 2


def spans_of(page: Path) -> list[str]:
    """Code within lines, outside of blocks."""
    return _SPAN.findall(_BLOCK.sub("\n", page.read_text(encoding="utf-8")))


def links_of(page: Path) -> list[str]:
    return _LINK.findall(_BLOCK.sub("\n", page.read_text(encoding="utf-8")))


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("\n", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def words_of(text: str) -> Iterator[list[str]]:
    """The words of each simple command in a piece of shell: quotes taken off, variables as they stand."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for word in lexer:
            if word in _ENDS:
                yield command
                command = []
            else:
                command.append(word)
        yield command


def oatflow_commands(text: str) -> list[list[str]]:
    """Each `oatflow ...` in a piece of shell, without its first word; a variable stands for what its line gave it."""
    given: dict[str, list[str]] = {}
    found = []
    for words in words_of(text):
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            given[f"${name}"] = shlex.split(value)
        if words[:1] == ["oatflow"]:
            found.append([part for word in words[1:] for part in given.get(word, [word]) if part != "..."])
    return found


def _block(page: str, text: str, match: re.Match[str]) -> Block:
    mark = _MARK.fullmatch(match["before"].strip())
    line = text.count("\n", 0, match.start("text"))
    kind, value = (mark["kind"], mark["value"] or "") if mark else ("", "")
    return Block(page, line, match["language"], match["text"], kind, value)
