"""The pipeline that users submit: the next K rounds of an experiment, K fixed when it is compiled."""

from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from oatflow.components.errors import SettingsError

from .round import alignment_round, uncached

MOST_ROUNDS = 10


def alignment_pipeline(rounds: int) -> Any:
    """Unroll `rounds` rounds into one pipeline. KFP has no loop that carries state; the ledger carries it."""
    if not 1 <= rounds <= MOST_ROUNDS:
        raise SettingsError(f"rounds={rounds}: a pipeline does 1 to {MOST_ROUNDS} rounds; run it again for more")

    @dsl.pipeline(
        name="oatflow-alignment",
        description=f"Align a language model online: the next {rounds} round(s) of an experiment.",
    )
    def alignment(ledger: str, settings: dict[str, Any]) -> None:
        """Do the next rounds of an experiment.

        Args:
            ledger: URI of the experiment, s3://bucket/prefix?endpoint=http://host:port; a new one begins here.
            settings: Settings by section, as `oatflow align --help` lists them; frozen with the first round.
        """
        previous = None
        for _ in range(rounds):
            task = uncached(alignment_round(ledger=ledger, settings=settings, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER))
            previous = task.after(previous) if previous is not None else task

    return alignment


def compile_pipeline(rounds: int, path: Path) -> None:
    """Write the pipeline as YAML to upload, byte-identical for the same version."""
    compiler.Compiler().compile(alignment_pipeline(rounds), str(path))
