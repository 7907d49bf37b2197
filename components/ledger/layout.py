"""Where everything of an experiment lies: the only speller of keys.

Rooms that may leave something behind in a round, in the order of the data, are `ROOMS`; an experiment that learns no
reward model does without one of them.
"""

from __future__ import annotations

EXPERIMENT = "experiment.json"
HEAD = "HEAD.json"

STEPS = {
    "sampling": "sample", "labeling": "label", "policy": "train", "reward_model": "fit", "evaluation": "evaluate",
}  # fmt: skip
"""What a room's work is called in a round."""
ROOMS = tuple(STEPS)


def prompts_key(split: str, sha256: str) -> str:
    """Return the key of a prompt table, named by its content."""
    return f"prompts/{split}-{sha256[:12]}.parquet"


def round_folder(round_: int) -> str:
    """Return the prefix of everything in a round."""
    return f"rounds/{round_:05d}/"


def claim_key(round_: int) -> str:
    """Return the key that says who works on the round."""
    return f"{round_folder(round_)}claim.json"


def plan_key(round_: int) -> str:
    """Return the key of the round's plan."""
    return f"{round_folder(round_)}plan.json"


def output_key(round_: int, room: str, name: str) -> str:
    """Return the key of one output of a step."""
    return f"{round_folder(round_)}{room}/{name}"


def digest_key(round_: int, room: str, name: str) -> str:
    """Return the key of an output's digest, which the round needs until the step is done."""
    return f"{round_folder(round_)}digests/{room}/{name}.sha256"


def done_key(round_: int, room: str) -> str:
    """Return the key of the mark that a step is done."""
    return output_key(round_, room, "done.json")


def round_record_key(round_: int) -> str:
    """Return the key of the record that closes the round."""
    return f"{round_folder(round_)}round.json"


def running_key(round_: int, name: str) -> str:
    """Return the key of a part of the running state after the round."""
    return f"{round_folder(round_)}running/{name}"
