"""What is settled before the model is loaded, what is counted, and what the gateway and the model say to each other."""

import pytest
from oatflow.components.errors import ModelError, SettingsError
from oatflow.components.oracles.settings import ScorerSettings
from oatflow.components.reward_server.envelope import (
    Scores,
    Served,
    pack_conversations,
    pack_scores,
    unpack_conversations,
    unpack_scores,
)
from oatflow.components.reward_server.metrics import Metrics
from oatflow.components.reward_server.serving import TOKEN, read_token, serve_model
from oatflow.components.reward_server.settings import ServerSettings

CONVERSATIONS = [("a prompt", "an answer\n\0"), ("", ""), ("ä" * 3, "\u2028'\"")]


def test_without_a_token_the_server_does_not_start_unless_it_is_told_to(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_token(wanted=False) is None
    with pytest.raises(SettingsError, match=f"{TOKEN}.*--no_token"):
        read_token(wanted=True)


@pytest.mark.parametrize("token", ["", "  ", "two words", "wörd", "line\nbreak"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_told(monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(SettingsError) as refused:
        read_token(wanted=True)
    assert not token.strip() or token not in str(refused.value)


def test_a_token_from_a_file_may_end_its_line(monkeypatch):
    monkeypatch.setenv(TOKEN, "word\n")
    assert read_token(wanted=True) == "word"


@pytest.mark.parametrize(("model", "error"), [("", SettingsError), ("/nowhere/at-all", ModelError)])
def test_a_model_that_is_none_is_refused_before_anything_starts(model, error):
    with pytest.raises(error, match="scorer_model"):
        serve_model(ScorerSettings(scorer_model=model), ServerSettings(port=0), None, print)


@pytest.mark.parametrize("setting", ["max_batch", "max_wait", "max_duels", "max_waiting", "timeout", "max_body"])
def test_limits_of_nothing_are_refused(setting):
    with pytest.raises(SettingsError, match=setting):
        ServerSettings.parse({setting: 0})


def test_the_gateway_and_the_model_understand_each_other():
    assert unpack_conversations(pack_conversations(CONVERSATIONS, "key"), "key") == CONVERSATIONS
    assert unpack_conversations(pack_conversations([], "key"), "key") == []
    scores = Scores("model@0123", [1.5, -1e-30, 3e38])
    assert unpack_scores(pack_scores(scores)) == scores


def test_without_the_key_there_is_nothing_to_score_and_no_error_for_the_others():
    assert unpack_conversations(pack_conversations(CONVERSATIONS, "another"), "key") == []


def test_the_models_process_is_told_by_its_environment(monkeypatch):
    served = Served(scorer=ScorerSettings(), max_batch=1, max_wait=2, timeout=3.5, key="key", parent=1)
    for name, value in served.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Served.from_environment() == served


def test_requests_are_counted_by_path_and_status_and_made_up_paths_together():
    metrics = Metrics()
    for path in ("/v1/compare", "/v1/compare", "/a", '/"}\n'):
        metrics.count_request({"/v1/compare"}, path, 200 if path == "/v1/compare" else 404)
    metrics.count_scored(4, 0.02)
    metrics.count_scored(2, 60.0)
    lines = metrics.write_text(ready=True).splitlines()
    assert 'oatflow_reward_requests_total{path="/v1/compare",status="200"} 2.0' in lines
    assert 'oatflow_reward_requests_total{path="other",status="404"} 2.0' in lines
    assert "oatflow_reward_conversations_total 6.0" in lines
    assert 'oatflow_reward_seconds_bucket{le="0.01"} 0.0' in lines
    assert 'oatflow_reward_seconds_bucket{le="0.025"} 1.0' in lines
    assert 'oatflow_reward_seconds_bucket{le="30.0"} 1.0' in lines
    assert 'oatflow_reward_seconds_bucket{le="+Inf"} 2.0' in lines
    assert "oatflow_reward_ready 1.0" in lines
