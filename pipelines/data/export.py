"""`oatflow export`: the policy of one finished round as a folder that transformers and vLLM load.

The ledger keeps float32, in which policies are trained. Another number format is made file by file, so that never
more than one file's weights are in memory, and without the model's own classes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oatflow.components.errors import LedgerError, RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.store.files import replace_on_success
from oatflow.components.store.transfer import Placed, download_folder

from .model_card import Form, base_model, model_card

DTYPES = ("bfloat16", "float16", "float32")
TRAINED = "float32"
_INDEX = "model.safetensors.index.json"


def export_policy(ledger: Ledger, round_: int, out: Path, dtype: str, adapter: bool) -> str:
    """Write the policy of a finished round, or its adapter alone, and its model card; returns what that is, in words.

    `out` appears whole or not at all, and every file of it was what the ledger had recorded.
    """
    files = files_to_export(ledger, round_, adapter)
    with arriving_folder(out) as folder:
        download_folder(ledger.store, files, folder)
        if adapter:
            _name_base_model(folder / "adapter_config.json", base_model(ledger))
        if dtype != TRAINED:
            convert(folder, dtype)
        form = Form(dtype, adapter, brings_code=any(folder.glob("*.py")))
        (folder / "README.md").write_text(model_card(ledger, round_, form), encoding="utf-8")
    converted = f"converted from {TRAINED} to {dtype} (--dtype {TRAINED} leaves it as it was trained)"
    made = f"in {TRAINED}, as it was trained" if dtype == TRAINED else converted
    return f"{'adapter' if adapter else 'policy'} of round {round_}, {made}"


def files_to_export(ledger: Ledger, round_: int, adapter: bool) -> Sequence[Placed]:
    """Return the files that a round left of its policy. Raises `RefusedInput` where there is no such thing."""
    policy = ledger.experiment.settings["policy"]
    if policy.get("trainer") == "scripted":
        raise RefusedInput("policy.trainer='scripted': no model was trained; export an experiment that trains one")
    if policy.get("learn_rm_only"):
        raise RefusedInput("policy.learn_rm_only=True: no policy was trained; the starting model is what there is")
    # An experiment may be older than this setting.
    if adapter and not policy.get("lora_rank"):
        raise RefusedInput(
            "adapter=True: the experiment trained all weights and has no adapter (policy.lora_rank=0); leave --adapter "
            "out, or begin an experiment with --lora-rank 8"
        )
    name = "adapter" if adapter else "model"
    done = ledger.find_done(round_, "policy")
    files = done.list_folder(name) if done else ()
    if not files:
        raise LedgerError(f"round {round_}: training has left no folder {name}; run `oatflow status --verify`")
    return files


def check_folder(out: Path) -> Path:
    """Return the whole path of a folder that may be written: a new or an empty one."""
    out = out.expanduser().resolve()
    if out.is_dir() and any(out.iterdir()):
        raise RefusedInput(f"out={str(out)!r}: there are files in that folder; name a new or an empty one with --out")
    if out.exists() and not out.is_dir():
        raise RefusedInput(f"out={str(out)!r}: that is a file; name a new or an empty folder with --out")
    return out


@contextmanager
def arriving_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` that takes its place on success; on failure nothing of it is left."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-")
    except OSError as error:
        raise RefusedInput(
            f"out={str(out)!r}: cannot be written ({error.strerror}); name another folder with --out"
        ) from error
    with beside as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        yield folder
        folder.replace(check_folder(out))


def convert(folder: Path, dtype: str) -> None:
    """Give all weights in a folder another number format, and let index and configuration say so."""
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        with replace_on_success(path) as temporary:
            size += _convert_file(path, temporary, dtype)
    if (folder / _INDEX).is_file():
        index = _read_tensors(folder / _INDEX)
        _write_tensors(folder / _INDEX, {**index, "metadata": {**index.get("metadata", {}), "total_size": size}})
    if (folder / "config.json").is_file():
        _write_tensors(
            folder / "config.json", {**with_dtype(_read_tensors(folder / "config.json"), dtype), "dtype": dtype}
        )


def with_dtype(configuration: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return a configuration that says `dtype` wherever it, or one within it, said what its weights are."""
    said: dict[str, Any] = {}
    for name, value in configuration.items():
        if name in ("dtype", "torch_dtype"):
            said["dtype"] = dtype
        else:
            said[name] = with_dtype(value, dtype) if isinstance(value, Mapping) else value
    return said


def _convert_file(source: Path, target: Path, dtype: str) -> int:
    """Write a safetensors file in another number format; returns the bytes of its weights."""
    try:
        import torch
        from safetensors import safe_open
        from safetensors.torch import save_file
    except ImportError as error:
        raise RefusedInput(
            f"dtype={dtype!r}: converting weights takes {error.name}, which is not installed; install "
            f"oatflow[trainer], or leave them as they are with --dtype {TRAINED}"
        ) from error
    with safe_open(source, framework="pt") as file:
        names = file.keys()
        weights = {name: _convert_tensors(name, file.get_tensor(name), getattr(torch, dtype)) for name in names}
        save_file(weights, target, file.metadata())
    return sum(weight.nbytes for weight in weights.values())


def _convert_tensors(name: str, weight: Any, dtype: Any) -> Any:
    if not weight.is_floating_point():
        return weight
    converted = weight.to(dtype)
    if converted.isinf().any() and not weight.isinf().any():
        format_ = str(dtype).removeprefix("torch.")
        raise RefusedInput(
            f"dtype={format_!r}: {name} has a number as large as {weight.abs().max().item():.3g}, which {format_} does "
            "not hold; use --dtype bfloat16"
        )
    return converted


def _name_base_model(path: Path, name: str) -> None:
    """Let an adapter's configuration name the model that it belongs to, not the folder where that lay."""
    _write_tensors(path, {**_read_tensors(path), "base_model_name_or_path": name})


def _read_tensors(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _write_tensors(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
