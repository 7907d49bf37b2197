"""Settings under former names are read as before, from experiments, settings files and forms."""

import pytest
from oatflow.components.errors import SettingsChanged, SettingsError
from oatflow.components.former_settings import update_settings
from oatflow.components.rounds.experiment import ExperimentSettings, read_settings, refuse_changes, split_operational
from oatflow.components.rounds.form import fields_of, sections_of
from oatflow.pipelines.alignment.config import gather

FORMER = {
    "labeling": {"preference_oracle": "reward_model", "reward": "length", "reward_temperature": 0.5},
    "scorer": {"scorer_model": "someone/rewards"},
    "evaluation": {"eval_oracle": "simulated"},
}


def test_former_settings_mean_what_they_meant():
    settings = ExperimentSettings.parse(FORMER)
    assert (settings.simulated.reward, settings.simulated.reward_temperature) == ("length", 0.5)
    assert settings.labeling.preference_oracle == "scorer"
    assert ExperimentSettings.parse({"evaluation": {"eval_oracle": "reward_model"}, "scorer": {"scorer_model": "x"}})


def test_settings_of_today_stay_as_they_are():
    everything, _ = split_operational(ExperimentSettings())
    assert update_settings(everything) == everything
    assert update_settings({"labeling": "nonsense", "evaluation": None}) == {"labeling": "nonsense", "evaluation": None}


def test_an_experiment_that_began_with_former_settings_goes_on_with_either_and_refuses_others():
    everything, _ = split_operational(ExperimentSettings.parse(FORMER))
    frozen = {name: section for name, section in everything.items() if name != "simulated"}
    frozen["labeling"] = frozen["labeling"] | FORMER["labeling"]
    refuse_changes(frozen, ExperimentSettings.parse(FORMER), "old")
    refuse_changes(frozen, ExperimentSettings.parse(everything), "old")
    changed = everything | {"simulated": {"reward": "vader", "reward_temperature": 0.5}}
    with pytest.raises(SettingsChanged, match=r"simulated\.reward was 'length' and is now 'vader'"):
        refuse_changes(frozen, ExperimentSettings.parse(changed), "old")
    other = everything | {"labeling": everything["labeling"] | {"preference_oracle": "pairrm"}, "scorer": {}}
    with pytest.raises(SettingsChanged, match=r"labeling\.preference_oracle was 'scorer' and is now 'pairrm'"):
        refuse_changes(frozen, ExperimentSettings.parse(other), "old")


def test_a_known_reward_may_be_given_while_another_oracle_is_asked():
    given = {"labeling": {"preference_oracle": "pairrm", "reward": "length"}}
    assert ExperimentSettings.parse(given).simulated.reward == "length"


def test_a_former_and_a_new_name_that_disagree_are_refused():
    with pytest.raises(SettingsError, match=r"labeling\.reward='length': unknown setting; it belongs under"):
        ExperimentSettings.parse({"labeling": {"reward": "length"}, "simulated": {"reward": "vader"}})
    ExperimentSettings.parse({"labeling": {"reward": "length"}, "simulated": {"reward": "length"}})


def test_a_settings_file_of_before_goes_over_a_preset_of_today(tmp_path):
    (tmp_path / "before.yaml").write_text("labeling: {reward: length, reward_temperature: 0.5}\n")
    settings = gather("reviews", tmp_path / "before.yaml", {})
    assert (settings.simulated.reward, settings.simulated.reward_temperature) == ("length", 0.5)


def test_a_form_of_before_is_read_into_the_new_section():
    form = {"preference_oracle": "reward_model", "reward": "length", "scorer_model": "someone/rewards"}
    more = {"labeling": {"reward_temperature": 0.5, "bt_sample": True}}
    settings = ExperimentSettings.parse(sections_of({**form, "more_settings": more}))
    assert (settings.simulated.reward, settings.simulated.reward_temperature) == ("length", 0.5)
    assert (settings.labeling.preference_oracle, settings.labeling.bt_sample) == ("scorer", True)
    everything, _ = split_operational(settings)
    assert ExperimentSettings.parse(sections_of(fields_of(everything))) == settings


def test_an_experiment_older_than_a_setting_goes_on_as_it_began_though_the_default_is_another_now():
    everything, _ = split_operational(ExperimentSettings())
    frozen = everything | {"policy": {k: v for k, v in everything["policy"].items() if k != "leftover_pairs"}}
    assert read_settings(frozen, {}).policy.leftover_pairs == "own_step"
    assert read_settings({}, {}).policy.leftover_pairs == "own_step"
    assert read_settings(everything, {}).policy.leftover_pairs == "spread"
    # Today's settings with their defaults do not ask for a change; and a new experiment's are frozen as any other.
    for same in (ExperimentSettings(), ExperimentSettings.parse({"policy": {"leftover_pairs": "own_step"}})):
        refuse_changes(frozen, same, "old")
    other = ExperimentSettings.parse({"policy": {"leftover_pairs": "own_step"}})
    with pytest.raises(SettingsChanged, match=r"policy\.leftover_pairs was 'spread' and is now 'own_step'"):
        refuse_changes(everything, other, "new")
    with pytest.raises(SettingsChanged, match=r"policy\.leftover_pairs was 'own_step' and is now 'spread'"):
        refuse_changes(split_operational(other)[0], ExperimentSettings(), "new")
