"""From presets, files and flags to settings."""

import re
from collections import Counter

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.exploration.registry import STRATEGIES
from oatflow.components.oracles.registry import ORACLES
from oatflow.components.policy.registry import LOSSES
from oatflow.pipelines.alignment.config import all_settings, gather, presets
from oatflow.pipelines.cli import main
from oatflow.pipelines.laptop.align import on_this_machine, place_defaults
from oatflow.pipelines.settings_help import MOST_USED


def test_a_flag_needs_no_room_as_each_name_belongs_to_one():
    assert [name for name, times in Counter(setting.name for setting in all_settings()).items() if times > 1] == []


def test_every_setting_says_what_it_is():
    assert [setting.name for setting in all_settings() if len(setting.help) < 10] == []


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid(preset):
    assert gather(preset, None, {}).rounds >= 1


def test_the_offline_preset_samples_nothing_and_asks_nobody():
    settings = gather("offline", None, {})
    assert settings.prompts.offline and not settings.generates
    assert settings.rounds == 2


def test_a_flag_wins_over_a_file_and_a_file_over_the_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("policy: {beta: 0.3, l2: 0.01}\n")
    policy = gather("scripted", file, {"beta": "0.5"}).policy
    assert (policy.beta, policy.l2, policy.train_batch_size) == (0.5, 0.01, 8)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "1e-5", 1e-5),
        ("max_model_len", "none", None),
        ("bt_sample", "true", True),
        ("zero_stage", "3", 3),
    ],
)
def test_flags_are_read_as_what_they_mean(name, text, value):
    settings = gather("scripted", None, {name: text}).model_dump()
    assert next(section[name] for section in settings.values() if name in section) == value


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        gather("scripted", None, {}).policy.beta = 0.9


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("- 1\n")
    with pytest.raises(SettingsError, match=r"mine\.yaml: expected one mapping a room"):
        gather(None, file, {})


def read_help(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help-all", "--help_all"])
def test_the_whole_help_shows_every_setting_with_its_type_and_default(capsys, flag):
    text = read_help(capsys, "align", flag)
    for setting in all_settings():
        assert f"  --{setting.name} {setting.kind}" in text
    assert "policy settings" in text and "(default: 0.1)" in text


def test_the_whole_help_shows_the_choices_of_literals_and_of_registries(capsys):
    text = " ".join(read_help(capsys, "align", "--help-all").split())
    assert "One of: 0, 1, 2, 3." in text, "zero_stage"
    assert f"One of: {', '.join(STRATEGIES)}." in text
    assert f"One of: {', '.join(LOSSES)}." in text
    assert text.count(f"One of: {', '.join(ORACLES)}.") == 2, "preference_oracle and eval_oracle"


def test_the_help_of_align_fits_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = read_help(capsys, "align", "--help").splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 80
    for name in MOST_USED:
        assert any(line.startswith(f"  --{name} ") for line in lines)


@pytest.mark.parametrize("command", [["align"], ["submit"], ["schedule", "set"], ["audit-oracle"]])
def test_the_help_of_a_section_shows_that_section_alone(capsys, command):
    text = read_help(capsys, *command, "--help", "exploration")
    shown = set(re.findall(r"^  --(\w+)", text, re.MULTILINE))
    assert shown == {setting.name for setting in all_settings() if setting.room == "exploration"}


def test_an_unknown_section_of_the_help_is_refused_with_a_suggestion(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["align", "--help", "smapling"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "oatflow: help='smapling': unknown section; did you mean 'sampling'?\n"


def test_the_help_shows_the_values_of_the_preset_given_before_it(capsys):
    assert "prompts in one round (64)" in read_help(capsys, "align", "--help")
    assert "prompts in one round (128)" in read_help(capsys, "align", "--preset", "none", "--help")


@pytest.mark.slow
def test_a_setting_that_may_be_null_is_so_by_default_as_kfp_hands_no_null_over():
    for setting in all_settings():
        try:
            gather("scripted", None, {setting.name: "none"})
        except SettingsError:
            continue
        assert setting.default is None, setting.name


def test_what_a_place_has_for_defaults_gives_way_to_everything_else(tmp_path):
    place = {"train_backend": "pytorchjob", "sampler_gpus": "1", "max_queries": 7}
    settings = gather("scripted", None, {"train_backend": "trainjob"}, place)
    assert settings.jobs.train_backend == "trainjob"
    assert settings.resources.sampler_gpus == "1"
    assert settings.labeling.max_queries == 32, "the preset's"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("sampler_gpus", "0", "0"),
        ("train_node_selector", '{"pool": "a100"}', {"pool": "a100"}),
        ("train_tolerations", "[{key: gpu, operator: Exists}]", [{"key": "gpu", "operator": "Exists"}]),
        ("image_pull_secrets", "[pull]", ["pull"]),
    ],
)
def test_text_stays_text_and_structures_are_structures(name, text, value):
    settings = gather("scripted", None, {name: text, "tensor_parallel_size": "1"}).model_dump()
    assert next(section[name] for section in settings.values() if name in section) == value


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"train_workers": "4", "train_pods": "3"}, r"policy\.train_workers=4: not a multiple of jobs\.train_pods=3"),
        (
            {"train_workers": "4", "train_pods": "2", "train_pod_gpus": "4", "train_backend": "pytorchjob"},
            r"jobs\.train_pod_gpus='4': each pod runs 2 workers",
        ),
        ({"train_workers": "2", "train_pods": "2"}, r"jobs\.train_pods=2: train_backend='local' trains in the step"),
        (
            {"tensor_parallel_size": "4", "train_backend": "trainjob"},
            r"resources\.sampler_gpus='1': sampling\.tensor_parallel_size=4",
        ),
        ({"train_pod_memory": "16 gigs"}, r"jobs\.train_pod_memory='16 gigs'"),
        ({"train_queue": "Team Queue"}, r"jobs\.train_queue='Team Queue'"),
        ({"train_backend": "pytorchjobs"}, r"jobs\.train_backend='pytorchjobs'"),
    ],
)
def test_what_no_cluster_could_run_is_refused_by_name(flags, problem):
    with pytest.raises(SettingsError, match=problem):
        gather("scripted", None, flags)


def test_settings_for_a_cluster_train_on_this_machine_all_the_same():
    flags = {"train_backend": "pytorchjob", "train_pods": "2", "train_workers": "2"}
    settings = on_this_machine(gather("scripted", None, flags))
    assert (settings.jobs.train_backend, settings.jobs.train_pods) == ("local", 1)


@pytest.mark.parametrize("preset", presets())
def test_a_preset_leaves_lease_and_patience_to_the_place_of_the_run(preset):
    on_a_cluster = gather(preset, None, {}).ledger
    assert (on_a_cluster.lease_seconds, on_a_cluster.store_patience_seconds) == (600, 600)
    here = gather(preset, None, {}, place_defaults(None)).ledger
    assert (here.lease_seconds, here.store_patience_seconds) == (60, 30)
    with_a_store_elsewhere = gather(preset, None, {"lease_seconds": "90"}, place_defaults("s3://bucket/prefix")).ledger
    assert (with_a_store_elsewhere.lease_seconds, with_a_store_elsewhere.store_patience_seconds) == (90, 600)


def test_the_help_says_what_align_takes_on_this_machine():
    helps = {setting.name: setting.help for setting in all_settings()}
    for name, value in place_defaults(None).items():
        assert f"`oatflow align` takes {value:g} " in helps[name]
