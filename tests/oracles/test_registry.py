"""An oracle is one class and one registration: what removing a registration changes, and what opening one does."""

from pkgutil import resolve_name

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.evaluation.settings import EvaluationSettings
from oatflow.components.labeling.settings import LabelingSettings
from oatflow.components.oracles.registry import ORACLES, OracleKind, open_oracle
from oatflow.components.oracles.settings import SimulatedSettings
from oatflow.components.records.records import Duel
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.components.settings import Section

DUELS = [Duel(f"duel-{n}", "p", "?", "a b" * n, "a", 0, 1, False) for n in range(1, 4)]


def test_an_unknown_oracle_is_refused_with_a_suggestion():
    with pytest.raises(SettingsError, match=r"^preference_oracle='pairm': unknown; did you mean 'pairrm'\?$"):
        LabelingSettings.parse({"preference_oracle": "pairm"})
    with pytest.raises(SettingsError, match=r"^preference_oracle='gpt': unknown; known: human, judge, pairrm, re"):
        LabelingSettings.parse({"preference_oracle": "gpt"})


def test_these_oracles_are_registered_and_imported_from_where_their_registrations_say():
    assert list(ORACLES) == ["simulated", "pairrm", "scorer", "remote", "judge", "human"]
    assert all(callable(resolve_name(kind.open)) for kind in ORACLES.values())


def accepted(name):
    """Return the settings of an experiment that asks that oracle."""
    kind = ORACLES[name]
    given = {"labeling": {"preference_oracle": name}, "evaluation": {"eval_every": 1 if kind.answers_at_once else 0}}
    return ExperimentSettings.parse(given | ({kind.section: {kind.required: "http://it"}} if kind.required else {}))


@pytest.mark.parametrize("name", ORACLES)
def test_without_its_registration_a_name_is_refused_and_all_others_are_accepted(name, monkeypatch):
    monkeypatch.delitem(ORACLES, name)
    with pytest.raises(SettingsError, match=f"preference_oracle='{name}': unknown; (did you mean|known: )"):
        LabelingSettings.parse({"preference_oracle": name})
    with pytest.raises(SettingsError, match=f"eval_oracle='{name}': unknown; (did you mean|known: )"):
        EvaluationSettings.parse({"eval_oracle": name})
    others = [other for other in ORACLES if other != name]
    assert [list(accepted(other).oracles) for other in others] == [[other] for other in others]


@pytest.mark.parametrize("name", [name for name, kind in ORACLES.items() if kind.required])
def test_an_oracle_is_refused_without_the_setting_that_it_needs(name):
    kind = ORACLES[name]
    with pytest.raises(SettingsError, match=f"{kind.section}.{kind.required}='': oracle '{name}' needs it"):
        ExperimentSettings.parse({"labeling": {"preference_oracle": name}})


def test_an_oracle_without_settings_is_one_registration(monkeypatch):
    oracle = open_oracle("simulated", SimulatedSettings(reward="length"))
    monkeypatch.setitem(ORACLES, "brevity", OracleKind(None, Section, lambda settings, circumstances: oracle))
    settings = ExperimentSettings.parse({"labeling": {"preference_oracle": "brevity"}})
    assert settings.oracles == {"brevity": Section()} and open_oracle("brevity", Section()) is oracle
    assert "brevity" not in ExperimentSettings().oracles


def test_the_settings_reach_the_oracle():
    oracle = open_oracle("simulated", SimulatedSettings(reward="length", reward_temperature=0.5))
    assert oracle.identity == "simulated/length/T=0.5"


def test_a_log_names_every_duel_in_the_order_of_asking_and_changes_no_answer(tmp_path, monkeypatch):
    settings = SimulatedSettings(reward="length")
    plain = open_oracle("simulated", settings)
    monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(tmp_path / "asked.txt"))
    logged = open_oracle("simulated", settings)
    assert (logged.identity, logged.paid, logged.spending) == (plain.identity, plain.paid, plain.spending)
    assert logged.compare_duels(DUELS[:2]) + logged.compare_duels(DUELS[2:]) == plain.compare_duels(DUELS)
    assert (tmp_path / "asked.txt").read_text() == "duel-1\nduel-2\nduel-3\n"
