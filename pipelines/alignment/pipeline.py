"""The pipeline that users submit: the next K rounds of an experiment, K fixed when it is compiled."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.images import TRAINER
from oatflow.components.rounds.opening import LONGEST_RUN

from .build import Build
from .form import LEDGER, docstring, signature
from .package import pack
from .round import disable_cache, first_round, later_round, play_first_round, pod_fields

MOST_ROUNDS = LONGEST_RUN


def alignment_pipeline(rounds: int, build: Build) -> Any:
    """Return the pipeline of one round, or of a first and a second; `pack` repeats the second.

    KFP has no loop that carries state; the ledger carries it. A single round is in the pipeline itself, so that a
    user of KFP's UI has one layer less to open.
    """
    first_of_many, later = first_round(build), later_round(build)

    def alignment(ledger: Any, *values: Any) -> None:
        form = dict(zip(list(given.parameters)[1:], values, strict=True))
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        if rounds == 1:
            play_first_round(ledger, run, form, build)
            return
        first = disable_cache(first_of_many(ledger=ledger, run=run, **form))
        disable_cache(later(ledger=ledger, run=run, **{name: form[name] for name in pod_fields(build)})).after(first)

    given = signature(build.defaults(), ["ledger"])
    alignment.__signature__ = given  # type: ignore[attr-defined]
    alignment.__doc__ = docstring("Do the next rounds of an experiment.", build.defaults(), {"ledger": LEDGER})
    description = (
        f"Align a language model online: the next {rounds} round(s) of an experiment. To carry it on, run this again "
        "with the same ledger and the same settings."
    )
    return dsl.pipeline(name="oatflow-alignment", description=description)(alignment)


def compile_pipeline(rounds: int, path: Path, build: Build | None = None) -> None:
    """Write the pipeline as YAML to upload, byte-identical for the same version and build.

    Raises `SettingsError` for a number of rounds that one run cannot do, `PipelineRefused` for a pipeline that KFP's
    backend would refuse, and `RefusedInput` for a path that cannot be written; nothing is written then.
    """
    if not 1 <= rounds <= MOST_ROUNDS:
        raise SettingsError(f"rounds={rounds}: a pipeline does 1 to {MOST_ROUNDS} rounds; run it again for more")
    build = build or Build()
    with tempfile.TemporaryDirectory() as folder:
        # What is refused is not left behind where a user could upload it.
        compiled = Path(folder) / "compiled.yaml"
        compiler.Compiler().compile(alignment_pipeline(rounds, build), str(compiled))
        pack(compiled, rounds, build.images(), TRAINER if build.trains_in_step else None)
        try:
            path.write_bytes(compiled.read_bytes())
        except OSError as error:
            raise RefusedInput(
                f"out={str(path)!r}: cannot be written ({error.strerror}); name a file in a folder that exists"
            ) from error
