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


def ask_worker_0(answer: bool) -> bool:
    """Return worker 0's `answer` on every worker."""
    sent = torch.tensor([int(answer)])
    if torch.cuda.is_available():
        sent = sent.cuda(local_rank())
    dist.broadcast(sent, 0)
    return bool(sent.item())
