"""A strategy is one function and one registration: what removing a registration changes, and what a record asks for."""

import subprocess
import sys

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.exploration.registry import STRATEGIES, Strategy
from oatflow.components.exploration.settings import ExplorationSettings
from oatflow.components.rounds.experiment import ExperimentSettings


def test_these_strategies_are_registered():
    ensemble = ["EnnPassive", "EnnEETS", "EnnBAITS", "EnnUncertainty", "DRTS", "DeltaUCB"]
    assert list(STRATEGIES) == ["passive", *ensemble, "APL", "XPO"]
    assert [name for name, strategy in STRATEGIES.items() if strategy.needs == "ensemble"] == ensemble


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_imported_from_where_its_registration_says(name):
    assert callable(STRATEGIES[name].load_pick())


def accepted(name):
    """Return the settings of an experiment that explores with that strategy."""
    return ExperimentSettings.parse(
        {"exploration": {"exp_method": name}, "sampling": {"num_samples": STRATEGIES[name].samples or 4}}
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_without_its_registration_a_name_is_refused_and_all_others_are_accepted(name, monkeypatch):
    monkeypatch.delitem(STRATEGIES, name)
    with pytest.raises(SettingsError, match=f"exp_method='{name}': unknown; (did you mean|known: )"):
        ExplorationSettings.parse({"exp_method": name})
    others = [other for other in STRATEGIES if other != name]
    assert [accepted(other).exploration.exp_method for other in others] == others


def test_a_name_that_is_nearly_right_is_refused_with_the_right_one():
    with pytest.raises(SettingsError, match="did you mean 'EnnBAITS'"):
        ExplorationSettings.parse({"exp_method": "EnnBAIT"})


def test_one_registration_makes_a_strategy_of_a_plain_function(monkeypatch):
    def last_two(groups, settings, chance):
        raise NotImplementedError

    monkeypatch.setitem(STRATEGIES, "LastTwo", Strategy(last_two, needs="candidates", reads=("exploration.ucb_beta",)))
    settings = ExplorationSettings.parse({"exp_method": "lasttwo", "ucb_beta": 2.0})
    assert settings.exp_method == "LastTwo" and settings.strategy.load_pick() is last_two
    with pytest.raises(SettingsError, match="ignores it; leave it out, or use exp_method='DeltaUCB' or 'LastTwo'"):
        ExperimentSettings.parse({"exploration": {"ucb_beta": 2.0}})


def test_settings_and_registry_are_read_without_torch():
    program = """
import sys
from oatflow.components.exploration.settings import ExplorationSettings
assert ExplorationSettings.parse({"exp_method": "EnnBAITS"}).uses_ensemble
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
