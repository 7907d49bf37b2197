"""This process as the only worker of a training: what torchrun would set up, for a notebook or a test."""

from __future__ import annotations

import os
import socket

import torch.distributed as dist

from .learner import init_workers


def start_single_worker() -> tuple[int, int]:
    """Connect this process to itself; returns its rank, 0, and the number of workers, 1. Does so once a process."""
    if not dist.is_initialized():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ |= place | {"MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": str(os.getpid())}
        init_workers()
    return 0, 1
