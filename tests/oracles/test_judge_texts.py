"""What a judge is told may be given as a file or as the text itself, and is frozen with the experiment as text."""

import pytest
from oatflow.components.errors import RefusedInput, SettingsError
from oatflow.components.oracles.judge_prompt import open_prompt
from oatflow.pipelines.alignment.config import gather

TEMPLATE = "{rubric}\n{prompt}\n{first}\n{second}\nBetter (0 or 1):"
JUDGE = {"preference_oracle": "judge", "judge_model": "judge-1"}


def test_a_file_and_its_text_are_the_same_prompt(tmp_path):
    template, rubric = tmp_path / "judge.txt", tmp_path / "rubric.txt"
    template.write_text(TEMPLATE)
    rubric.write_text("Kinder is better.")
    read = open_prompt(str(template), str(rubric))
    settings = gather("scripted", None, {**JUDGE, "judge_template": str(template), "judge_rubric": str(rubric)}).judge
    assert settings.judge_template == TEMPLATE + "\n" and settings.judge_rubric == "Kinder is better.\n"
    frozen = open_prompt(settings.judge_template, settings.judge_rubric)
    assert (frozen.template.strip(), frozen.rubric.strip()) == (read.template.strip(), read.rubric.strip())


def test_a_file_that_is_not_there_is_refused_by_name():
    with pytest.raises(RefusedInput, match=r"judge\.judge_template='nowhere\.txt': cannot be read"):
        gather("scripted", None, {**JUDGE, "judge_template": "nowhere.txt"})


def test_a_template_without_its_placeholders_is_refused_and_not_quoted_at_length():
    with pytest.raises(
        SettingsError, match=r"^judge_template='Which is better\?.{0,90}\.\.\.: lacks \{prompt\}"
    ) as refused:
        open_prompt("Which is better?\n" + "Long words. " * 50, "")
    assert len(str(refused.value)) < 300
