"""A settings file says one thing: nothing in it is dropped in silence, and nothing in it grows when it is read."""

import pytest
from oatflow.components.errors import SettingsError
from oatflow.pipelines.alignment.config import gather, presets, read_preset

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("labeling: {preference_oracle: pairrm, preference_oracle: judge}", "'preference_oracle' is given twice"),
        ("sampling: {num_samples: 4}\nlabeling: {}\nsampling: {num_samples: 8}", "'sampling' is given twice"),
        ("sampling:\n  num_samples: 4\n  'num_samples': 4", "'num_samples' is given twice"),
        (BOMB, r"an alias \(\*\) is not read"),
        ("sampling: &same {num_samples: 4}\nprompts: *same", r"an alias \(\*\) is not read"),
        ("sampling: " + "[" * 5000 + "]" * 5000, "nested more than 32 deep"),
        ("sampling:\n" + "\n".join(" " * n + "- - x:" for n in range(1, 60)), "."),
    ],
)
def test_what_could_be_read_in_two_ways_or_grows_is_refused_with_its_place(tmp_path, text, why):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"settings.yaml: not readable as YAML: .*{why}") as said:
        gather("scripted", file, {})
    assert "\n" not in str(said.value)


def test_a_flag_that_is_nested_too_deeply_is_text():
    with pytest.raises(SettingsError, match="num_samples"):
        gather("scripted", None, {"num_samples": "[" * 5000})


def test_every_preset_is_read():
    assert all(read_preset(name) for name in presets())
