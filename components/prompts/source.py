"""Load a prompt set and check it: from a file, a folder, an object store, the hub, or this package."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa

from ..errors import ObjectNotFound, PromptError
from ..records.json_text import parse_json
from ..records.records import Prompt
from ..records.table import read_table
from ..store.setting_stores import SettingStores
from .settings import PromptSettings
from .template import Tokenizer, encode_prompt

BUILT_IN = "oatflow:"
SHIPPED = ("oatflow:reviews", "oatflow:review-preferences")
SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class _Table:
    """A prompt set as read. `name`: how the user finds it; `rows`: where each row is, and its columns."""

    name: str
    rows: Iterable[tuple[str, Mapping[str, Any]]]


def load_prompts(
    settings: PromptSettings, split: str, stores: SettingStores | None = None, setting: str | None = None
) -> list[Prompt]:
    """Load all prompts of a split ("train" or "eval"), in the set's order. An id is the row and a hash of the text.

    Where the settings name columns of better and worse answers, every row of either split needs both. `stores` says
    which server an ``s3://`` address means that names none; `setting`: what the set's setting is called, if not as
    here.

    Raises `PromptError`, naming the file, the row or the column at fault.
    """
    own, source, part = _choose_split(settings, split)
    table = _open_source(setting or own, source, part, stores or SettingStores())
    prompts = [
        _make_prompt(table.name, row, where, columns, settings) for row, (where, columns) in enumerate(table.rows)
    ]
    if not prompts:
        raise _source_error(table.name, "holds no prompt", "give a set with at least one")
    return prompts


def drop_too_long(
    prompts: Sequence[Prompt], tokenizer: Tokenizer, settings: PromptSettings
) -> tuple[list[Prompt], int]:
    """Return the prompts of at most `prompt_max_length` tokens, template included, and how many were dropped."""
    lengths = [len(encode_prompt(tokenizer, prompt.text, settings.apply_chat_template)) for prompt in prompts]
    longest = settings.prompt_max_length
    kept = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= longest]
    if prompts and not kept:
        raise PromptError(
            f"prompts.prompt_max_length={longest}: every prompt is too long, the shortest of {len(prompts)} has "
            f"{min(lengths)} tokens; allow at least as many"
        )
    return kept, len(prompts) - len(kept)


def _choose_split(settings: PromptSettings, split: str) -> tuple[str, str, str | None]:
    """Return the setting that names a split's source, the source, and which part of it: None for a file."""
    if not settings.prompt_data:
        raise PromptError("prompts.prompt_data='': no prompt set is given; name a file, a folder or a hub data set")
    own = split == "eval" and settings.eval_data is not None
    source = settings.eval_data if own and settings.eval_data is not None else settings.prompt_data
    setting = "prompts.eval_data" if own else "prompts.prompt_data"
    if not urlsplit(source).path.endswith(SUFFIXES):
        return setting, source, settings.train_split if split == "train" else settings.eval_split
    if split == "eval" and not own:
        raise PromptError(
            f"prompts.eval_data=None: {source} is one file and has no {settings.eval_split!r} split; "
            "give a set for evaluation in eval_data, or a folder with both"
        )
    return setting, source, None


def _open_source(setting: str, source: str, part: str | None, stores: SettingStores) -> _Table:
    if source.startswith(BUILT_IN):
        return _built_in(source, part)
    if source.startswith("s3://"):
        return _from_store(setting, source, part, stores)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path, part)
    if part is None or path.is_absolute() or source.startswith((".", "~")):
        return _from_file(path)
    return _from_hub(source, str(part))


def _built_in(source: str, part: str | None) -> _Table:
    folder = importlib.resources.files(__package__).joinpath(source.removeprefix(BUILT_IN))
    file = folder.joinpath(f"{part}.jsonl")
    if not file.is_file():
        raise _source_error(source, f"has no split {part!r}", "the sets that ship with oatflow: " + ", ".join(SHIPPED))
    return _parse_table(f"{source}/{part}.jsonl", file.read_bytes())


def _from_file(path: Path) -> _Table:
    if not path.is_file():
        raise _source_error(path, "there is no such file or folder", "check the path")
    return _parse_table(str(path), path.read_bytes())


def _from_folder(folder: Path, part: str | None) -> _Table:
    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        return _from_disk(folder, part)
    for suffix in SUFFIXES:
        if (folder / f"{part}{suffix}").is_file():
            return _from_file(folder / f"{part}{suffix}")
    there = ", ".join(sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)) or "none"
    raise _source_error(folder, f"has no {part}.jsonl or {part}.parquet", f"prompt files there: {there}")


def _from_store(setting: str, source: str, part: str | None, stores: SettingStores) -> _Table:
    """Fetch one object: the one named, or below a prefix the one named like the split."""
    uri = urlsplit(source)
    path = PurePosixPath(uri.path)
    folder, names = (path.parent, [path.name]) if part is None else (path, [f"{part}{suffix}" for suffix in SUFFIXES])
    store = stores.open(urlunsplit(uri._replace(path=str(folder).rstrip("/"))), setting, source)
    for name in names:
        try:
            return _parse_table(f"{store.uri.partition('?')[0]}/{name}", store.get(name).data)
        except ObjectNotFound:
            continue
    raise PromptError(
        f"{setting}={source!r}: there is no object {' or '.join(names)} at {store.uri}; check bucket and key"
    )


def _from_disk(folder: Path, part: str | None) -> _Table:
    from datasets import DatasetDict, load_from_disk

    found = load_from_disk(str(folder))
    if not isinstance(found, DatasetDict):
        return _Table(str(folder), _number_rows(found))
    if part not in found:
        raise _source_error(folder, f"has no split {part!r}", f"splits there: {', '.join(found)}")
    return _Table(f"{folder}/{part}", _number_rows(found[part]))


def _from_hub(source: str, part: str) -> _Table:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    config, _, name = source.rpartition("@")
    try:
        found = load_dataset(name, config or None, split=part)
    except (OSError, ValueError, DatasetsError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _source_error(
            source,
            f"there is no such folder here, and split {part!r} cannot be had from the hub ({reason})",
            "check the name, and the connection",
        ) from error
    return _Table(f"{source}/{part}", _number_rows(found))


def _parse_table(name: str, data: bytes) -> _Table:
    return _Table(name, _parquet_rows(name, data) if name.endswith(".parquet") else _json_rows(name, data))


def _json_rows(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise _source_error(
                name, f"line {number} is not JSON ({error})", "put one JSON object on each line"
            ) from error
        if not isinstance(row, dict):
            raise _source_error(name, f"line {number} holds no JSON object", "put one JSON object on each line")
        yield f"line {number}", row


def _parquet_rows(name: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        table = read_table(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise _source_error(name, f"is not a readable Parquet file ({error})", "write it anew") from error
    yield from _number_rows(table.to_pylist())


def _number_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"row {number}", row) for number, row in enumerate(rows))


def _make_prompt(name: str, row: int, where: str, columns: Mapping[str, Any], settings: PromptSettings) -> Prompt:
    text = _read_text(name, where, columns, "input_key", settings.input_key)
    reference = settings.output_key and _read_text(name, where, columns, "output_key", settings.output_key)
    chosen = settings.chosen_key and _read_answer(name, where, columns, "chosen_key", settings.chosen_key)
    rejected = settings.rejected_key and _read_answer(name, where, columns, "rejected_key", settings.rejected_key)
    prompt_id = f"{row:06d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return Prompt(prompt_id, text, reference or None, chosen or None, rejected or None)


def _read_text(name: str, where: str, columns: Mapping[str, Any], setting: str, key: str) -> str:
    return _check_text(name, where, key, _read_value(name, where, columns, setting, key))


def _read_answer(name: str, where: str, columns: Mapping[str, Any], setting: str, key: str) -> str:
    """Return an answer that is text, or the assistant's last message of a conversation (as Oat's `extract_content`)."""
    value = _read_value(name, where, columns, setting, key)
    if not isinstance(value, list):
        return _check_text(name, where, key, value)
    turns = [turn for turn in value if isinstance(turn, Mapping) and turn.get("role") == "assistant"]
    if not turns:
        remedy = "give an answer as text, or as messages with role and content"
        raise _source_error(name, f"{where}, column {key!r} holds a list without a message of the assistant", remedy)
    return _check_text(name, where, key, turns[-1].get("content"))


def _read_value(name: str, where: str, columns: Mapping[str, Any], setting: str, key: str) -> Any:
    if key not in columns:
        raise PromptError(
            f"prompts.{setting}={key!r}: {name}, {where} has no such column; columns there: {', '.join(columns)}"
        )
    return columns[key]


def _check_text(name: str, where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        found = "is empty" if value is None or isinstance(value, str) else f"holds {type(value).__name__}"
        raise _source_error(name, f"{where}, column {key!r} {found}", "every row needs text there")
    return value


def _source_error(source: object, problem: str, remedy: str) -> PromptError:
    return PromptError(f"prompt_data={str(source)!r}: {problem}; {remedy}")
