"""Which prompts are too long: Oat's record."""

import json
from pathlib import Path

from oatflow.components.prompts.settings import PromptSettings
from oatflow.components.prompts.source import drop_too_long
from oatflow.components.prompts.template import WordTokenizer
from oatflow.components.records.records import Prompt

RECORD = json.loads((Path(__file__).parents[1] / "golden" / "oat_preference.json").read_text())["data"][
    "prompt_dataset"
]


def test_prompts_over_the_limit_are_dropped_as_in_oat_with_their_references():
    given = [Prompt(str(number), row["prompt"], row["ref"]) for number, row in enumerate(RECORD["rows"])]
    settings = PromptSettings(prompt_max_length=RECORD["prompt_max_length"], apply_chat_template=False)
    kept, dropped = drop_too_long(given, WordTokenizer(), settings)
    assert [[prompt.text, prompt.reference] for prompt in kept] == [
        [raw, reference] for _, raw, reference in RECORD["kept"]
    ]
    assert dropped == 1
