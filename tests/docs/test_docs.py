"""What the pages show is run, or marked; what is only marked still parses; what they name exists."""

import re

import pytest
import yaml
from oatflow.components.rounds.experiment import ExperimentSettings
from oatflow.pipelines.alignment.config import all_settings, presets

from .pages import (
    KINDS,
    PAGES,
    ROOT,
    anchors_of,
    blocks_of,
    fences_of,
    links_of,
    name_of,
    oatflow_commands,
    spans_of,
)

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
pages = pytest.mark.parametrize("page", PAGES, ids=name_of)
ERRORS = ROOT / "pipelines/ERRORS.md"
# Not settings of an experiment: of other programs and of this page's tables.
NO_SETTINGS = {"done", "label", "path"}


def of_kind(kind, *languages):
    return [block for block in BLOCKS if block.kind == kind and (not languages or block.language in languages)]


@pages
def test_every_block_says_whether_it_is_run(page):
    blocks = blocks_of(page)
    assert len(blocks) == fences_of(page)
    unmarked = [str(block) for block in blocks if block.kind not in KINDS]
    assert unmarked == [], f"put a comment before it: {KINDS}"


@pytest.mark.parametrize("block", of_kind("as in"), ids=str)
def test_the_test_that_a_block_names_is_there(block):
    assert (ROOT / block.value).is_file()


@pytest.mark.parametrize("block", [*of_kind("needs"), *of_kind("file")], ids=str)
def test_a_mark_says_what_is_needed_or_what_the_file_is_called(block):
    assert block.value


@pytest.mark.parametrize("block", [block for block in BLOCKS if "oatflow " in block.text and block.kind != "shows"],
                         ids=str)  # fmt: skip
def test_every_command_in_a_block_is_one_that_the_command_line_takes(block, parse):
    text = block.text
    if block.language == "yaml":
        text = "\n".join(line.removeprefix("- run: |") for line in text.splitlines())
    for words in oatflow_commands(text):
        given, unknown = parse(words)
        assert unknown == [], f"oatflow {' '.join(words)}"
        assert given.command is not None
        settings = {name: value for name, value in vars(given).items() if name.startswith("setting:") and value}
        if settings:
            names = {name.removeprefix("setting:") for name in settings}
            assert names <= {setting.name for setting in all_settings()}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_settings_in_a_block_are_settings(block):
    content = yaml.safe_load(block.text)
    if isinstance(content, dict) and content.keys() <= ExperimentSettings.model_fields.keys():
        ExperimentSettings.parse(content)
    else:
        assert isinstance(content, list), "one mapping for each section, or the steps of a CI"


@pages
def test_commands_flags_and_settings_named_in_a_line_exist(page, commands, flags):
    settings = {setting.name for setting in all_settings()}
    for span in spans_of(page):
        if span.startswith("oatflow "):
            words = oatflow_commands(span)[0]
            assert words[0] in commands or words[0].startswith("-"), span
            named = {word.partition("=")[0] for word in words if word.startswith("--")}
        else:
            named = set(re.findall(r"^--[a-z][a-z_-]+", span))
        assert {"--" + flag[2:].replace("-", "_") for flag in named} <= flags, span
        if setting := re.fullmatch(r"([a-z_]+)(?:: |=)[^\s=]+", span):
            assert setting[1] in settings | NO_SETTINGS, span


@pages
def test_links_lead_somewhere(page):
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


MADE_BY_A_BUILD = {"images/wheelhouse"}
# What the reader of a page writes, or a command of the page.
FILES_OF_A_READER = {"rewards.py"}
FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in ("components", "pipelines", "tests", "images", "manifests")
    for path in (ROOT / folder).rglob("*.*")
] + ["README.md", "pyproject.toml"]


@pages
def test_paths_named_in_a_line_are_there(page):
    """A path begins at the repository's root or beside the page; a file's name alone is found somewhere below."""
    for span in set(spans_of(page)) - MADE_BY_A_BUILD:
        if re.fullmatch(r"(components|pipelines|tests|images|manifests)/[\w./-]+", span):
            assert (ROOT / span).exists() or (page.parent / span).exists(), span
        elif re.fullmatch(r"[\w/-]+\.(py|sh|md|toml|html)", span) and span not in FILES_OF_A_READER:
            assert any(f"/{path}".endswith(f"/{span}") for path in FILES), span


def test_what_the_list_of_errors_quotes_is_what_the_code_says():
    sources = [path for folder in ("components", "pipelines") for path in (ROOT / folder).rglob("*.py")]
    # Lines that the source breaks are whole here.
    said = "\n".join(re.sub(r'"\n +f?"', "", path.read_text(encoding="utf-8")) for path in sources)
    for quoted in re.findall(r"^\| (`.+?) \|", ERRORS.read_text(encoding="utf-8"), re.MULTILINE):
        for span in re.findall(r"`([^`]+)`", quoted):
            for part in filter(None, (part.strip() for part in span.split("..."))):
                assert part in said, span


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 235


def test_the_page_lists_the_packages_in_the_order_that_the_architecture_test_enforces():
    page = (ROOT / "components/README.md").read_text()
    enforced = (ROOT / "tests/architecture/test_arrows.py").read_text()
    enforced = enforced[enforced.index("LEFT = [") : enforced.index("SIDEWAYS")]
    packages = re.findall(r'^    "(\w+)",$', enforced, re.MULTILINE)
    listed = re.search(r"`(errors settings [^`]+)\| pipelines`", page)
    assert listed and listed[1].replace("|", " ").split() == packages


def test_the_reading_guide_names_functions_of_its_files():
    page = (ROOT / "components/README.md").read_text()
    guide = page[page.index("### Reading guide") : page.index("| to change |")]
    rows = re.findall(r"^\| `([\w/]+\.py)`[^|]*\| ([^|]+) \|", guide, re.MULTILINE)
    assert 10 < len(rows) <= 15
    for name, functions in rows:
        source = (ROOT / "components" / name).read_text()
        for function in re.findall(r"`(\w+)`", functions):
            assert re.search(rf"^ *def {function}\b", source, re.MULTILINE), f"{name} has no function {function}"


def test_the_readme_explains_its_words_before_its_first_table():
    page = (ROOT / "README.md").read_text()
    words = page[page.index("## Words") : page.index("## Two commands")]
    explained = {word.lower() for bold in re.findall(r"\*\*([^*]+)\*\*", words) for word in bold.split(", ")}
    assert explained >= {
        "policy", "prompt", "candidates", "duel", "oracle", "preference", "query", "budget", "round", "experiment",
        "ledger", "win rate", "regret", "epistemic reward model",
    }  # fmt: skip
    assert "| " not in page[: page.index("## Words")]


def test_every_preset_and_oracle_is_described():
    tutorial, oracles = ((ROOT / page / "README.md").read_text() for page in ("pipelines", "components/oracles"))
    assert all(preset in tutorial for preset in presets() if preset not in ("reviews", "scripted"))
    from oatflow.components.oracles.registry import ORACLES

    assert all(f"`{name}`" in oracles for name in ORACLES)


def test_every_loss_and_strategy_is_described():
    from oatflow.components.exploration.registry import STRATEGIES
    from oatflow.components.policy.registry import LOSSES

    tutorial = (ROOT / "pipelines/README.md").read_text()
    assert all(f"`{name}`" in tutorial for name in (*STRATEGIES, *LOSSES))


def test_what_the_pages_show_of_runs_is_what_the_commands_print():
    printed = {line for path in (ROOT / "tests/golden").glob("*.txt") for line in path.read_text().splitlines()}
    shown = [block for name in ("README.md", "manifests/README.md") for block in blocks_of(ROOT / name)
             if block.kind == "shows" and "open-round  " in block.text]  # fmt: skip
    assert len(shown) == 2
    for block in shown:
        lines = [line for line in block.text.splitlines() if line.strip() != "..." and not line.startswith("$ ")]
        assert lines and set(lines) <= printed, block
