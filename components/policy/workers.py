"""The workers of a training job: what each computes on, what they share, and what worker 0 decides for all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist


def find_device() -> torch.device:
    """Return what this worker computes on."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def local_rank() -> int:
    """Return this worker's number on its host."""
    return int(os.environ["LOCAL_RANK"])


@contextmanager
def share_folder() -> Iterator[Path]:
    """Give a temporary folder that all workers of this host see; the first of them makes it and removes it."""
    path = Path(tempfile.gettempdir()) / f"oatflow-train-{os.environ['TORCHELASTIC_RUN_ID']}"
    if local_rank() == 0:
        if path.exists():
            # A container that is restarted finds what the one before left when it was killed.
            shutil.rmtree(path)
        path.mkdir(mode=0o700)
    dist.barrier()
    try:
        yield path
    finally:
        if local_rank() == 0:
            shutil.rmtree(path)


def share_number(number: int) -> int:
    """Return worker 0's number on every worker."""
    sent = torch.tensor([number], dtype=torch.int64, device=find_device())
    dist.broadcast(sent, 0)
    return int(sent.item())


def share_bytes(data: bytes | None) -> bytes:
    """Return worker 0's data on every worker; the others give None."""
    size = share_number(len(data or b""))
    sent = torch.frombuffer(bytearray(data or bytes(size)), dtype=torch.uint8).to(find_device())
    dist.broadcast(sent, 0)
    return bytes(sent.cpu().numpy())
