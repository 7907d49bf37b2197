"""Which backend runs the training jobs."""

from __future__ import annotations

from .job import JobBackend
from .local import LocalJobs
from .settings import JobSettings


def open_jobs(settings: JobSettings) -> JobBackend:
    """Return the backend that the settings name."""
    if settings.train_backend == "local":
        return LocalJobs()
    from .launcher import ClusterJobs

    return ClusterJobs.open(settings)
