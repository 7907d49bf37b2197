"""Rewards of the user's own: their module's code runs only where the user has allowed it."""

import os

import pytest
from oatflow.components.errors import OracleError, SettingsError
from oatflow.components.oracles.known_reward import REWARD_MODULES, allow_module, open_reward
from oatflow.components.oracles.registry import open_oracle
from oatflow.components.oracles.settings import SimulatedSettings
from oatflow.pipelines.alignment.config import gather

MODULE = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()

def warmth(prompt, response):
    return float(response.count("!"))

def nothing(prompt, response):
    return None
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's own on the path; its name is new, so that nothing has imported it."""
    name = f"rewards_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(REWARD_MODULES, "")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return name, tmp_path / f"{name}.ran"


def test_a_module_that_nobody_allowed_is_not_run(module):
    name, ran = module
    with pytest.raises(SettingsError, match=f"--reward {name}:warmth on the command line, or set OATFLOW_REWARD_MOD"):
        open_reward(f"{name}:warmth")
    assert not ran.exists()


@pytest.mark.parametrize("reward", ["timeit:timeit", "os:system", "subprocess:getoutput"])
def test_a_settings_file_cannot_name_a_function_of_python_itself(tmp_path, monkeypatch, reward):
    monkeypatch.setenv(REWARD_MODULES, "")
    file = tmp_path / "settings.yaml"
    file.write_text(f"simulated: {{reward: '{reward}'}}")
    settings = gather("scripted", file, {})
    with pytest.raises(SettingsError, match="is not allowed"):
        open_oracle("simulated", settings.simulated)


def test_a_function_that_is_named_on_the_command_line_is_a_reward(module):
    name, ran = module
    gather("scripted", None, {"reward": f"{name}:warmth"})
    named, reward = open_reward(f"{name}:warmth")
    assert ran.exists() and named.startswith(f"{name}:warmth@") and reward("?", "Good!!") == 2.0


def test_a_module_in_the_environment_is_allowed_and_no_other_one(module, monkeypatch):
    name, _ = module
    monkeypatch.setenv(REWARD_MODULES, f"other, {name}")
    allow_module("vader")
    assert os.environ[REWARD_MODULES] == f"other, {name}"
    _, reward = open_reward(f"{name}:nothing")
    with pytest.raises(OracleError, match="returned None for an answer to"):
        reward("?", "Good!!")
    with pytest.raises(SettingsError, match="is not allowed"):
        open_reward("timeit:timeit")


def test_settings_are_read_without_running_anything(module):
    name, ran = module
    assert SimulatedSettings.parse({"reward": f"{name}:warmth"}).reward == f"{name}:warmth"
    assert not ran.exists()
