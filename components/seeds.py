"""Every random number of an experiment derives from (experiment seed, round, prompt, purpose)."""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: int | str) -> int:
    """A seed in [0, 2**63) that depends on every part and on nothing else.

    Parts are length-prefixed before hashing, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in (seed, *purpose):
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1
