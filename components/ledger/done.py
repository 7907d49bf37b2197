"""The mark that a step is done: what went in, what came out, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..store.transfer import Placed


@dataclass(frozen=True, slots=True)
class Done:
    """Written last and once. Adopted by whoever runs the step again.

    `inputs`: SHA-256 by key of everything read from the ledger. `counts`, `facts`: what was measured. `timings`:
    seconds of `startup`, `work` and parts of work. `started`, `finished`: seconds since the epoch.
    """

    step: str
    round: int
    run: str
    token: int
    inputs: Mapping[str, str]
    outputs: tuple[Placed, ...]
    counts: Mapping[str, int]
    facts: Mapping[str, Any]
    timings: Mapping[str, float]
    software: Mapping[str, str]
    started: float
    finished: float

    def find_output(self, name: str) -> Placed | None:
        """Return the output of that name."""
        return next((placed for placed in self.outputs if placed.name == name), None)

    def list_folder(self, name: str) -> tuple[Placed, ...]:
        """Return the outputs below that folder, named relative to it."""
        inside = f"{name}/"
        return tuple(
            Placed(placed.name.removeprefix(inside), placed.key, placed.size, placed.sha256)
            for placed in self.outputs
            if placed.name.startswith(inside)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the mark as a JSON document."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Done:
        """Read a mark back."""
        return cls(**(body | {"outputs": tuple(Placed(**placed) for placed in body["outputs"])}))
