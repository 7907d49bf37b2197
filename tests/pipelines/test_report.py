"""`oatflow report`: pages of experiments that really ran, with scripted rooms."""

import argparse

import pytest
from oatflow.components.errors import RefusedInput
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_labeling, run_sampling, run_train
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.data.report import meaning, report_parser

SMALL = {"rollout_batch_size": "4", "max_queries": "8", "max_eval": "12"}


def begin(root, name, **flags):
    """Run a whole experiment in a directory."""
    settings = gather("scripted", None, {**SMALL, **flags}).model_dump(mode="json")
    uri = f"{root}/{name}"
    while (round_ := open_round(uri, settings, "run")) != NOTHING_TO_DO:
        ledger = Ledger.open(uri)
        for step in (run_sampling, run_labeling, run_train, run_evaluation):
            step(ledger, round_, "run")
        close_round(uri, round_, "run")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three experiments: two seeds of one kind, and one of another."""
    root = tmp_path_factory.mktemp("experiments").as_uri()
    begin(root, "plain-0", seed="0")
    begin(root, "plain-1", seed="1")
    begin(root, "other", beta="0.3")
    return root


def report(root, home, *arguments):
    parser = argparse.ArgumentParser()
    report_parser(parser.add_subparsers())
    given = parser.parse_args(["report", *arguments, "--ledger", root, "--home", str(home)])
    return given.do(given)


@pytest.mark.slow
def test_one_name_gives_the_report_of_that_experiment(root, tmp_path, capsys):
    assert report(root, tmp_path, "other") == 0
    page = tmp_path / "reports" / "other.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "oatflow experiment <strong>other</strong>" in page.read_text()


@pytest.mark.slow
def test_several_names_give_a_comparison_with_the_first_as_its_baseline(root, tmp_path, capsys):
    report(root, tmp_path, "plain-0", "other", "plain-1", "--level", "0.5")
    page = tmp_path / "reports" / "plain-0-vs-other-vs-plain-1.html"
    html, said = page.read_text(), capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 kinds of experiment after ") and said[1].startswith("plain wins ")
    assert "beside plain" in said[2] and said[-1] == str(page)
    assert "To 50%" in html and "<td>policy.beta</td><td>0.1</td><td>0.3</td>" in html


@pytest.mark.slow
def test_the_page_may_be_written_elsewhere_and_is_the_same_again(root, tmp_path):
    for name in ("a.html", "b.html"):
        report(root, tmp_path, "plain-0", "other", "--out", str(tmp_path / name))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "letter"),
    [
        (["nobody"], "experiment='nobody': there is none in"),
        (["a", "b", "a"], "experiment='a': named 2 times"),
        (["a", "b", "--level", "60"], "level=60: expected a share"),
        (["a", "--level", "0.6"], "level=0.6: only a comparison"),
    ],
)
def test_what_cannot_be_reported_is_refused_by_name(tmp_path, arguments, letter):
    with pytest.raises(RefusedInput, match=letter):
        report(tmp_path.as_uri(), tmp_path, *arguments)
    assert not (tmp_path / "reports").exists()


def test_a_setting_that_is_younger_than_an_experiment_had_its_default_then():
    young = meaning(gather("scripted", None, {}).model_dump(mode="json"))
    old = {room: dict(values) for room, values in gather("scripted", None, {}).model_dump(mode="json").items()}
    del old["evaluation"]["num_bon"], old["judge"]
    assert meaning(old) == young
    assert "ledger.lease_seconds" not in young and young["ledger.seed"] == 0
