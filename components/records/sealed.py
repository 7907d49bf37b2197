"""JSON documents that notice their own damage.

A document is ``{"sha256": digest of the body, "body": {...}}`` in one canonical spelling, so that any changed byte,
even of white space, is noticed on read. A document's *digest* is the SHA-256 of all its bytes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..errors import DamagedObject


def seal_document(body: dict[str, Any]) -> bytes:
    """Serialise a document. The same body gives the same bytes."""
    digest = hashlib.sha256(_to_canonical_json(body)).hexdigest()
    return _to_indented_json({"sha256": digest, "body": body})


def unseal_document(data: bytes, key: str) -> dict[str, Any]:
    """Read a document; raises `DamagedObject` with its key if any byte is not as it was written."""
    try:
        document = json.loads(data)
        body: dict[str, Any] = document["body"]
        intact = seal_document(body) == data
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DamagedObject(f"{key}: this is not what was written; restore the object from a backup of the bucket")
    return body


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of an object's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _to_canonical_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _to_indented_json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
