"""What may be a key: a relative path of plain names, which leads nowhere else."""

from __future__ import annotations

from ..errors import RefusedInput


def checked_key(key: str) -> str:
    """Return `key`, or raise `RefusedInput` for one that is empty, absolute, climbs up or cannot be printed."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key or not key.isprintable():
        raise RefusedInput(f"key={key!r}: not a relative path; use plain names with single slashes between them")
    return key


def checked_prefix(prefix: str) -> str:
    """Return `prefix`, which may be empty or end within a name or after a slash; otherwise as `checked_key`."""
    if prefix:
        checked_key(prefix.removesuffix("/"))
    return prefix
