"""Settings of the ledger room."""

from __future__ import annotations

from pydantic import Field

from ..settings import Section, operational_field


class LedgerSettings(Section):
    """How rounds are claimed and kept."""

    seed: int = Field(0, ge=0)
    """Everything random in the experiment derives from it."""
    lease_seconds: float = operational_field(600.0, ge=2)
    """How many seconds a claim holds without a sign of life before another run may take it over. `oatflow align` \
takes 60 unless you set it."""
    store_patience_seconds: float = operational_field(600.0, ge=0)
    """For how many seconds a step repeats its requests while the store is away (refuses connections, hangs, answers \
5xx); 0 for a few tries. `oatflow align` takes 30 for the store of this machine unless you set it; commands such as \
status always make a few tries."""
    keep_optimizers: int = operational_field(2, ge=1)
    """Optimizer states kept, newest rounds first (only the newest is ever read); policies are kept for good."""
