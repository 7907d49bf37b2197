"""The container images of the doors and of the training job.

The version is the package's own, so that a run says what it ran.
"""

from __future__ import annotations

REGISTRY = "ghcr.io/oatflow"
CONTROL = "ghcr.io/oatflow/control:0.1.0"
SAMPLER = "ghcr.io/oatflow/sampler:0.1.0"
ORACLE = "ghcr.io/oatflow/oracle:0.1.0"
TRAINER = "ghcr.io/oatflow/trainer:0.1.0"
