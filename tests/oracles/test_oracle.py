import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.labeling.settings import LabelingSettings
from oatflow.components.oracles.oracle import ORACLES, open_oracle
from oatflow.components.oracles.settings import KNOWN_ORACLES, SimulatedSettings
from oatflow.components.records.records import Duel

DUELS = [Duel(f"duel-{n}", "p", "?", "a b" * n, "a", 0, 1, False) for n in range(1, 4)]


def test_an_unknown_oracle_is_refused_with_a_suggestion():
    with pytest.raises(SettingsError, match=r"^preference_oracle='pairm': unknown; did you mean 'pairrm'\?$"):
        LabelingSettings.parse({"preference_oracle": "pairm"})
    with pytest.raises(SettingsError, match=r"^preference_oracle='gpt': unknown; known: human, judge, pairrm, re"):
        LabelingSettings.parse({"preference_oracle": "gpt"})


def test_every_oracle_that_the_settings_know_can_be_opened():
    assert set(ORACLES) == set(KNOWN_ORACLES)


def test_the_settings_reach_the_oracle():
    oracle = open_oracle("simulated", SimulatedSettings(reward="length", reward_temperature=0.5))
    assert oracle.identity == "simulated/length/T=0.5"


def test_a_log_names_every_duel_in_the_order_of_asking_and_changes_no_answer(tmp_path, monkeypatch):
    settings = SimulatedSettings(reward="length")
    plain = open_oracle("simulated", settings)
    monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(tmp_path / "asked.txt"))
    logged = open_oracle("simulated", settings)
    assert (logged.identity, logged.paid, logged.purse) == (plain.identity, plain.paid, plain.purse)
    assert logged.compare(DUELS[:2]) + logged.compare(DUELS[2:]) == plain.compare(DUELS)
    assert (tmp_path / "asked.txt").read_text() == "duel-1\nduel-2\nduel-3\n"
