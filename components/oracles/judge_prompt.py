"""What a judge is sent: instructions from files, and the texts that it judges, which are data.

A template may have a line ``[user]``: what stands above it is the system message, what stands below it the user's.
Ours has one, since models are trained to rank a system message above what a user's message quotes; a template without
the line becomes a single user message, as Oat's request, for models whose chat template knows no system message.

The judged texts come from a policy that learns to please this judge, so that one day it will talk to it. Therefore:

- Each text stands between two marker lines with a code that derives from the seed and the texts themselves. Whoever
  writes a text cannot know the code, for every change of the text changes it.
- What looks like a marker in a text is broken up by a space, and so is what looks like a special token of a chat
  template, such as <|im_start|>: a server may read it as its own, even in the middle of a user's text. That is all that
  is changed in a text.
- Placeholders are filled in one pass: {first} in a prompt stays what it is.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .. import seeds
from ..errors import SettingsError
from ..records.records import Duel
from .verdicts import OPTIONS

Message = dict[str, str]

LONGEST_NAME = 80
"""Characters of a template that an error quotes, where the setting is the text itself."""

_NEEDED, _OPTIONAL = ("prompt", "first", "second"), ("rubric", "code")
_TEMPLATES = Path(__file__).parent / "templates"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SPLIT = re.compile(r"^\[user\][ \t]*\n", re.MULTILINE)
_MARKER = re.compile(r"<(?=<<\s*(?:begin|end)\b)", re.IGNORECASE)
# The first character of what a chat template or tokenizer of any known family takes for a special token. Bars,
# underscores and colons mark most of them, as ordinary tags have none; the others are listed. Some tokenizers read the
# wide forms of brackets as the narrow ones.
_SPECIAL = re.compile(
    r"""
    [<\uff1c\ufe64](?=                                    # < and its wide forms, before
        [|\uff5c][^\s<>]{1,80}[>\uff1e\ufe65]              #   |im_start|> and |turn>, with DeepSeek's wide bar, too
        |/?[^\s<>]{1,80}[|\uff5c][>\uff1e\ufe65]           #   turn|>
        |/?\w{0,80}[_\u2581]\w{0,80}[>\uff1e\ufe65]                 #   start_of_turn>, BOS_TOKEN>, fim_prefix>
        |/?\w{1,80}:\w{1,80}[>\uff1e\ufe65]                         #   seed:think>, mask:0>
        |/?(?:s|bos|eos|pad|unk|mask|sep|cls|sop|eop|eoh|eoa|eod|eot|think|thinking|tools?|role|image|filename|reponame
            |unused\d+|loc\d+|seg\d+|0x[0-9a-f]{2})[>\uff1e\ufe65]
        |</?SYS>>                                         #   Llama 2
    )
    |[\[\uff3b](?=                                        # [ before
        [|\uff5c][^\s\[\]]{1,80}[|\uff5c][\]\uff3d]        #   |user|], EXAONE
        |/?(?-i:[A-Z]+(?:_[A-Z0-9]+)+)[\]\uff3d]           #   TOOL_CALLS], Mistral
        |/?(?:inst|img|args|think|audio|transcribe|prefix|middle|suffix|bos|eos|pad|unk|cls|sep|[gs]?mask|control_\d+)
            [\]\uff3d]
        |e~\[                                             #   MiniMax, as ]~b] and ]~!b[
    )
    |\](?=~!?b[\[\]])
    |>(?=>(?-i:[A-Z]{3,})<<)                              # >>QUESTION<<, Falcon
    |\uff5c(?=\w{1,80}\uff5c)                             # DeepSeek's DSML between wide bars
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """A template and a rubric, checked. `digest` names both."""

    template: str
    rubric: str

    @property
    def digest(self) -> str:
        """The first 8 hexadecimal digits of the SHA-256 of what is in both files."""
        digest = hashlib.sha256()
        for text in (self.template, self.rubric):
            encoded = text.encode()
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()[:8]

    def build_messages(self, duel: Duel, swapped: bool, seed: int) -> list[Message]:
        """Return the messages that ask about a duel; `swapped`: the second answer is shown first."""
        shown = (duel.second, duel.first) if swapped else (duel.first, duel.second)
        code = _choose_code(duel, seed)
        values = {
            "rubric": self.rubric.strip(),
            "code": code,
            "prompt": _mark_text("prompt", duel.prompt, code),
            "first": _mark_text(f"answer {OPTIONS[0]}", shown[0], code),
            "second": _mark_text(f"answer {OPTIONS[1]}", shown[1], code),
        }
        parts = [_fill_template(part, values) for part in _SPLIT.split(self.template, maxsplit=1)]
        return [{"role": role, "content": part} for role, part in zip(_name_roles(parts), parts, strict=True) if part]


def open_prompt(template: str, rubric: str) -> JudgePrompt:
    """Read both, each a file or, if it has several lines, the text itself; ours where one is empty.

    Raises `SettingsError` for what cannot be used.
    """
    text = _read_file("judge_template", template or str(_TEMPLATES / "judge.txt"))
    _check_placeholders(text, template, rubric)
    return JudgePrompt(text, _read_file("judge_rubric", rubric or str(_TEMPLATES / "rubric.txt")))


def neutralise_text(text: str) -> str:
    """Return a text in which nothing is a marker or a special token: a space after its first character."""
    return _SPECIAL.sub(lambda match: f"{match[0]} ", _MARKER.sub("< ", text))


def _mark_text(what: str, text: str, code: str) -> str:
    return f"<<<begin {what} {code}>>>\n{neutralise_text(text)}\n<<<end {what} {code}>>>"


def _choose_code(duel: Duel, seed: int) -> str:
    """Sixteen hexadecimal digits that are in none of the texts; the same for a duel with its sides changed.

    So a judge that is asked in both orders is sent the same two requests for (a, b) and for (b, a).
    """
    texts = (duel.prompt, *sorted((duel.first, duel.second)))
    codes = (f"{seeds.derive(seed, *texts, 'code', number):016x}" for number in count())
    return next(code for code in codes if not any(code in text for text in texts))


def _fill_template(template: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


def _name_roles(parts: list[str]) -> list[str]:
    return ["system", "user"][-len(parts) :]


def _read_file(name: str, path: str) -> str:
    if "\n" in path:
        return path
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeError) else getattr(error, "strerror", None) or error
        raise SettingsError(f"{name}={path!r}: cannot be read ({reason}); give the path of a text file") from error


def _check_placeholders(text: str, template: str, rubric: str) -> None:
    found = set(_PLACEHOLDER.findall(text))
    lacks = [name for name in (*_NEEDED, *(["rubric"] if rubric else [])) if name not in found]
    unknown = sorted(found - {*_NEEDED, *_OPTIONAL})
    problems = [
        *([f"lacks {_join_names(lacks)}"] if lacks else []),
        *([f"has {_join_names(unknown)}, which nothing fills"] if unknown else []),
    ]
    if problems:
        known = _join_names([*_NEEDED, *_OPTIONAL])
        name = repr(template) if len(template) <= LONGEST_NAME else f"{template[:LONGEST_NAME]!r}..."
        raise SettingsError(f"judge_template={name}: {'; '.join(problems)}; its placeholders are {known}")


def _join_names(names: list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
