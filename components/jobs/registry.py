"""The kinds of job that a cluster may run the training as."""

from __future__ import annotations

from . import pytorchjob, trainjob
from .job_kind import JobKind

KINDS: dict[str, JobKind] = {"pytorchjob": pytorchjob.KIND, "trainjob": trainjob.KIND}
