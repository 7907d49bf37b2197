"""The three worked examples are each one experiment, however they are started."""

import json
from pathlib import Path

import pytest
from oatflow.components.rounds.experiment import ExperimentSettings, refuse_changes
from oatflow.components.rounds.form import sections_of
from oatflow.pipelines.alignment.build import Build
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.alignment.form import fields

from .pages import ROOT, blocks_of, oatflow_commands, words_of

BLOCKS = blocks_of(ROOT / "pipelines/README.md")
EXAMPLES = ("tldr-online", "tldr-offline", "tldr-sea")


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory):
    (block,) = [block for block in BLOCKS if block.value == "tldr.yaml"]
    path = tmp_path_factory.mktemp("examples") / "tldr.yaml"
    path.write_text(block.text)
    return path


@pytest.fixture
def typed(parse, settings_file):
    """The settings of the `oatflow` command that starts an example, with the defaults of its place."""

    def typed(command, name):
        commands = [words for block in BLOCKS for words in oatflow_commands(block.text) if words[0] == command]
        (words,) = [words for words in commands if name in words]
        given, unknown = parse(words)
        assert unknown == []
        flags = {key.removeprefix("setting:"): value for key, value in vars(given).items()
                 if key.startswith("setting:") and value is not None}  # fmt: skip
        assert given.preset == "none" and given.config == Path("tldr.yaml")
        return gather(None, settings_file, flags, Build().defaults() if command == "submit" else None)

    return typed


def sent(name):
    """The settings that the `kfp` command starts an example with: what is typed, over the form's defaults."""
    (block,) = [block for block in BLOCKS if "TLDR=(" in block.text]
    array = block.text[block.text.index("TLDR=(") + len("TLDR=(") :].partition(")\n")[0]
    shared = [word for words in words_of(array) for word in words]
    lines = [words for words in words_of(block.text) if words[:1] == ["$KFP"]]
    (line,) = [words for words in lines if name in words]
    own = line[line.index("${TLDR[@]}") + 1 :]
    given = dict(word.split("=", 1) for word in [*shared, *own])
    form = {field.name: field.default for field in fields(Build().defaults())}
    assert given.keys() <= form.keys()
    return ExperimentSettings.parse(sections_of(form | {name: read(value) for name, value in given.items()}))


def read(value):
    """As `kfp run create` reads a value: as JSON where it is, as text otherwise."""
    try:
        return json.loads(value)
    except ValueError:
        return value


@pytest.mark.parametrize("name", EXAMPLES)
def test_align_submit_and_kfp_start_the_same_experiment(name, typed):
    here, submitted, by_kfp = typed("align", name), typed("submit", name), sent(name)
    for other in (submitted, by_kfp):
        refuse_changes(here.model_dump(mode="json"), other, name)
    assert by_kfp == submitted, "the pods, too"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_what_the_page_says_of_it(name, typed):
    settings = typed("align", name)
    assert (settings.policy.dap_algo, settings.policy.beta, settings.policy.train_batch_size) == ("simpo", 2, 128)
    assert set(settings.oracles) == {"pairrm"}
    # Runs of ten rounds, one after the other.
    assert settings.rounds == 49
    online = settings.policy.sync_params_every == 1
    assert online == (name != "tldr-offline") and settings.learns_rewards == (name == "tldr-sea")
