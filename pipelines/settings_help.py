"""The help of the settings: a screen of the ones that most people need, one section, or all of them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from oatflow.components.errors import SettingsError
from oatflow.components.settings import did_you_mean

from .alignment.config import Setting, all_settings, read_preset

WIDTH = 79
INDENT = 28
MOST_USED = {
    "prompt_data": "prompts: a file, folder, s3:// or hub name",
    "input_key": "column that holds the prompt",
    "rollout_batch_size": "prompts in one round",
    "num_samples": "candidates drawn for a prompt",
    "generate_max_length": "longest candidate, in tokens",
    "exp_method": "",
    "preference_oracle": "",
    "reward": "simulated oracle's reward",
    "max_queries": "oracle calls in the whole experiment",
    "pretrain": "model to start from",
    "dap_algo": "",
    "beta": "strength of the pull to the reference",
    "learning_rate": "peak learning rate",
    "lora_rank": "0 trains all weights",
}


class ShowHelp(argparse.Action):
    """`--help`: the options and the settings most used; `--help SECTION` and `--help-all` show the rest."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Print the help that was asked for and exit."""
        preset = {} if namespace.preset == "none" else read_preset(namespace.preset)
        if option == "--help_all":
            print(parser.format_help() + describe_sections("", preset))
        elif values:
            print(describe_sections(values, preset))
        else:
            print(parser.format_help() + describe_most_used(preset))
        parser.exit()


def describe_most_used(preset: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line or two for each of the settings that most people need; `preset` gives their defaults."""
    known = {setting.name: setting for setting in all_settings()}
    lines = ["", "settings that most people need, with their defaults:"]
    for name, text in MOST_USED.items():
        setting = known[name]
        value = preset.get(setting.room, {}).get(name, setting.default)
        words = [text] if text else []
        words += [", ".join(setting.choices)] if setting.choices else []
        lines += _describe(setting, f"{'; '.join(words)} ({_show_value(value)})")
    sections = ", ".join(_group_settings())
    return "\n".join([*lines, "", *textwrap.wrap(f"All settings: --help-all. One section: --help {sections}.", WIDTH)])


def describe_sections(name: str, preset: Mapping[str, Mapping[str, Any]]) -> str:
    """Return every setting of a section, or of all sections where `name` is empty."""
    sections = _group_settings()
    if name and name not in sections:
        raise SettingsError(f"help={name!r}: unknown section; {did_you_mean(name, list(sections))}")
    lines: list[str] = []
    for section in [name] if name else sections:
        lines += ["", f"{section} settings:"]
        for setting in sections[section]:
            lines += _describe(setting, _describe_fully(setting, preset))
    frozen = (
        "Settings marked * may change while an experiment goes on, those marked + may be raised; its first round "
        "freezes all others."
    )
    return "\n".join([*lines, "", *textwrap.wrap(frozen, WIDTH)])


def _group_settings() -> dict[str, list[Setting]]:
    sections: dict[str, list[Setting]] = {}
    for setting in all_settings():
        sections.setdefault(setting.room, []).append(setting)
    return sections


def _describe_fully(setting: Setting, preset: Mapping[str, Mapping[str, Any]]) -> str:
    choices = f" One of: {', '.join(setting.choices)}." if setting.choices else ""
    ours = preset.get(setting.room, {}).get(setting.name)
    default = f"default: {_show_value(setting.default)}" + ("" if ours is None else f"; preset: {ours}")
    mark = "* " if setting.operational else "+ " if setting.growing else ""
    return f"{mark}{setting.help}{choices} ({default})"


def _show_value(value: Any) -> str:
    return "none" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)


def _describe(setting: Setting, text: str) -> Iterator[str]:
    """Yield the lines of one setting: flag and type on the left, text on the right."""
    flag = f"  --{setting.name} {setting.kind}"
    margin = " " * INDENT
    if len(flag) >= INDENT:
        yield flag
        flag = ""
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=flag.ljust(INDENT), subsequent_indent=margin, break_long_words=False
    )
