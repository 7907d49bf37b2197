import base64
import csv
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from oatflow.components.ledger import layout
from oatflow.components.records.sealed import seal_document
from oatflow.components.reporting.page import MOST, fold_text, render_report, write_report
from oatflow.components.reporting.report import read_report
from oatflow.components.reporting.result import result_table
from oatflow.components.reporting.summary import page_markdown

VOID = {"meta", "link", "br", "path", "use", "rect", "clippath", "input"}
HOSTILE = "</style></div><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} & \"'\x00\x1b"


class Page(HTMLParser):
    """What a browser would see: elements, ids, all text, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.ids, self.text, self._open = [], [], "", []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, text):
        self.text += text

    def tags(self):
        return [tag for tag, _ in self.elements]


def test_hostile_answers_stay_text(made_report, made_duel):
    duels = (made_duel(first=HOSTILE, prompt=HOSTILE), made_duel(second=HOSTILE, first_wins=0.1))
    page = Page(render_report(made_report(duels=duels)))
    tame = Page(render_report(made_report(duels=(made_duel(), made_duel(first_wins=0.1)))))
    assert page.tags() == tame.tags()
    assert page.text.count("<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} & \"'\ufffd\ufffd") == 3


def test_hostile_names_and_settings_stay_text(made_report):
    names = {
        "name": HOSTILE,
        "oracle": HOSTILE,
        "settings": {HOSTILE: {HOSTILE: HOSTILE}},
        "software": {HOSTILE: HOSTILE},
    }
    tags = Page(render_report(made_report(**names))).tags()
    assert "img" not in tags and tags.count("script") == 1


def test_the_page_loads_nothing_and_runs_one_script_of_its_own(html):
    assert not re.search(r"https?:|//[a-z]|@import|\son\w+=|src=", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in Page(html).elements if attrs.get("http-equiv"))
    assert policy == (f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:")


def test_everything_is_there_without_the_script_and_its_tools_are_not(made_report, made_duel):
    page = Page(render_report(made_report(duels=(made_duel(), made_duel("other")))))
    tools = [attrs for _, attrs in page.elements if attrs.get("class") == "tools"]
    assert len(tools) == 3 and all("hidden" in attrs for attrs in tools)
    assert not [attrs for tag, attrs in page.elements if tag == "article" and "hidden" in attrs]


def test_charts_are_named_images_with_their_numbers_beside_them(html):
    page = Page(html)
    images = [attrs for _, attrs in page.elements if attrs.get("role") == "img"]
    assert len(images) == page.tags().count("svg") == page.tags().count("figure") == 4
    assert all(len(attrs["aria-label"]) > 40 for attrs in images)
    assert page.tags().count("table") >= 5


def test_ids_are_unique_over_all_drawings(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r"(?:url\(|href=\")#([\w-]+)", html))
    assert used <= set(page.ids)


@pytest.mark.parametrize(("first_wins", "marks"), [(0.9, ["✓ chosen", "rejected"]), (0.1, ["rejected", "✓ chosen"])])
def test_the_winner_is_marked_in_words(made_report, made_duel, first_wins, marks):
    html = render_report(made_report(duels=(made_duel(first_wins=first_wins),), verdicts=()))
    assert re.findall(r'class="verdict">([^<]+)<', html) == marks
    assert re.findall(r"probability (\d+)%", html) == [f"{100 * first_wins:.0f}", f"{100 - 100 * first_wins:.0f}"]


def test_a_synthetic_pair_is_marked_and_the_oracle_is_not_named_for_it(made_report, made_duel, html):
    told = {"strategy": "EnnBAITS", "synthetic": True, "member": 7, "member_first_wins": 0.9, "predicted": 0.6}
    duels = (made_duel(**told), made_duel(strategy="EnnBAITS", synthetic=False, predicted=0.53, uncertainty=0.018))
    text = " ".join(Page(render_report(made_report(duels=duels))).text.split())
    assert "labelled by member 7 of the ensemble, without asking the oracle." in text
    assert "The probability is simulated/vader-3.3.2/T=0.1’s, or of a synthetic pair the member’s, that this" in text
    assert "Picked by EnnBAITS. The ensemble’s prediction: the first wins with 53% ± 1.8 points." in text
    assert "oretold" not in Page(html).text and "ynthetic" not in Page(html).text


def test_a_page_of_exploration_says_what_its_columns_mean(made_report, made_explored_row, html):
    rows = tuple(made_explored_row(round_, synthetic=5 * round_) for round_ in range(3))
    explored = render_report(made_report(rows=rows, settings={"exploration": {"exp_method": "EnnBAITS"}}))
    page, plain = Page(explored), Page(html).text
    text = " ".join(page.text.split())
    assert "<dt>Synthetic pairs</dt><dd>15 " in explored and "<dt>Duels picked by</dt><dd>EnnBAITS " in explored
    for said in ("The regret of a duel is", "The online win rate counts", "Foreseen is", "A synthetic pair is"):
        assert said in text and said not in plain
    assert page.tags().count("figure") == 8


def test_a_page_of_a_policy_that_is_not_trained_does_not_claim_that_it_learned(made_report):
    text = Page(
        render_report(made_report(settings={"policy": {"learn_rm_only": True}, "evaluation": {"num_bon": 10}}))
    ).text
    assert "Duels the reward model learned from" in text and "The policy stays the starting model" in text
    assert "training moved the policy" not in text and "Policy after round" not in text
    assert "the one of 10 that its reward model scores highest" in " ".join(text.split())


def test_the_same_report_gives_the_same_bytes(made_report, html):
    assert render_report(made_report()) == html


def test_a_report_before_the_first_round_says_so(made_report):
    html = render_report(made_report(rows=(), rounds=None, duels=(), verdicts=()))
    assert "No round is finished yet" in Page(html).text
    assert "figure" not in Page(html).tags()


def test_a_report_comes_from_the_ledger_alone(ledger):
    text = Page(write_report(ledger)).text
    assert "After 2 queries the policy wins 75% [50, 100] of 4 held-out prompts against the starting model" in text
    assert ledger.read_head().digest in text
    assert page_markdown(read_report(ledger)).startswith("# first-light\n\nAfter 2 queries")


def test_a_page_of_an_offline_experiment_shows_what_was_measured_and_no_more(made_report, made_offline_row):
    report = made_report(rows=(made_offline_row(0), made_offline_row(1)), verdicts=(), oracle="preference set")
    page = Page(render_report(report))
    assert [name for name in page.ids if name in ("win-rate", "held-out", "reward", "margin", "seconds")] == [
        "held-out", "margin", "seconds",
    ]  # fmt: skip
    assert "Preferences read" in page.text and "Preferences the policy learned from" in page.text
    for never in ("Oracle queries", "Win rate", "probability", "win rate", "queries"):
        assert never not in page.text.partition("Settings, versions, digests")[0], never


def test_the_judge_of_an_offline_experiment_is_who_judged_and_not_the_set(offline_ledger, close_rounds):
    assert "judged by" not in write_report(offline_ledger)
    done = offline_ledger.find_done(1, "evaluation")
    facts = {"win_rate": 0.75, "low": 0.5, "high": 1.0, "oracle": "the judge"}
    judged = seal_document(replace(done, counts={"prompts": 4}, facts=facts).to_json())
    offline_ledger.store.put(layout.done_key(1, "evaluation"), judged)
    page = write_report(close_rounds(offline_ledger))
    assert "After 5 preferences the policy wins 75% [50, 100] of 4" in page and "judged by the judge" in page


@pytest.mark.parametrize("text", ["", "short", "word " * 40, "x" * 101, "a\n" * 200])
def test_folding_loses_nothing(text):
    shown, folded, missing = fold_text(text, 100)
    assert shown + folded == text and not missing
    assert len(shown) <= 100
    assert bool(folded) == (len(text) > 100)


def test_what_a_page_leaves_out_of_a_very_long_answer_is_counted(made_report, made_duel):
    text = "word " * MOST
    shown, folded, missing = fold_text(text)
    assert (shown + folded, missing) == (text[:MOST], 4 * MOST)
    html = render_report(made_report(duels=(made_duel(first=text),)))
    assert "Another 16,000 characters are in the ledger." in html


def test_who_judged_and_in_which_order_is_said_of_each_duel(made_report, made_duel):
    sample = made_duel()
    both = replace(sample, preference=replace(sample.preference, orders="both"))
    text = " ".join(Page(render_report(made_report(duels=(both,)))).text.split())
    assert "Judged by simulated/vader-3.3.2/T=0.1, in both orders." in text


def test_an_answer_that_nobody_can_read_is_shown_as_that_and_not_as_a_tie(made_report, made_duel):
    sample = made_duel()
    nothing = {"first_wins": None, "chosen": None, "unreadable": True}
    html = render_report(
        made_report(duels=(replace(sample, preference=replace(sample.preference, **nothing)),), verdicts=())
    )
    assert "The answer cannot be read as a verdict, so nothing was learned from it." in html
    assert re.findall(r'class="verdict">([^<]+)<', html) == ["unreadable", "unreadable"]
    assert not re.search(r"probability \d", html)


def test_an_oracle_that_says_neither_is_shown_with_its_probability_and_no_label(made_report, made_duel):
    sample = made_duel()
    neither = {"first_wins": 0.5, "chosen": None, "undecided": True}
    html = render_report(
        made_report(duels=(replace(sample, preference=replace(sample.preference, **neither)),), verdicts=())
    )
    assert "It says that neither is better" in html
    assert re.findall(r'class="verdict">([^<]+)<', html) == ["neither is better"] * 2
    assert re.findall(r"probability (\d+)%", html) == ["50", "50"]


def test_the_result_states_each_number_with_its_interval_and_what_it_is_over(made_report, made_row, made_answers):
    rows = (made_row(0, answers=made_answers(60, 10, 58)), made_row(1, answers=made_answers()))
    lines = {line[0]: line[1:] for line in result_table(made_report(rows=rows)).body}
    assert lines["Win rate"] == ("71%", "[62, 79]", "128 prompts: 70 won, 10 tied, 10 of them equal texts, 48 lost")
    assert lines["Sign test against 50%"] == ("p = 0.053", "", "118 prompts won or lost")
    assert lines["Longer than the opponent’s"][0] == "+4.0 tokens"
    value, interval, over = lines["Change since round 0"]
    assert (value, over) == ("+7.8 points", "the same 128 prompts") and interval.startswith("[+")
    assert re.fullmatch(r"\d\d% \[\d\d, \d\d\] 128 prompts", " ".join(lines["Win rate at equal length"]))


def test_a_win_rate_at_equal_length_that_cannot_be_had_is_explained_instead(made_report, made_row, made_answers):
    report = made_report(rows=(made_row(0, answers=made_answers(wins=120, ties=3, losses=5)),))
    line = next(line for line in result_table(report).body if "equal length" in line[0])
    assert line[1:] == ("–", "–", "needs 10 wins and 10 losses; there are 120 and 5")


def test_every_chart_can_be_saved_and_copied_as_csv(html):
    page = Page(html)
    links = {attrs["download"]: attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert set(links) == {f"first-light-{name}.csv" for name in ("win-rate", "reward", "margin", "seconds")}
    rows = list(csv.reader(io.StringIO(unquote(links["first-light-win-rate.csv"].partition(",")[2]))))
    assert rows[0][:3] == ["Round", "Queries", "Win rate"] and rows[6] == ["5", "384", "0.71", "0.62", "0.79", "128"]
    assert page.tags().count("pre") == len(links)


def test_outcomes_can_be_filtered_by_and_only_those_that_there_are(made_report, made_duel, made_verdict):
    verdicts = (made_verdict("a"), made_verdict("b", policy_wins=0.5), made_verdict("c"))
    page = Page(render_report(made_report(duels=(made_duel(),), verdicts=verdicts)))
    outcomes = [attrs["data-outcome"] for tag, attrs in page.elements if tag == "article"]
    assert outcomes == ["first chosen", "policy better", "tie", "policy better"]
    assert page.tags().count("option") == 2 + 3


@pytest.mark.slow
def test_a_page_of_400_rounds_stays_below_two_megabytes(made_report, made_explored_row, made_answers, made_duel):
    answers = made_answers()
    rows = tuple(
        replace(made_explored_row(round_, clash_rate_before=0.1), answers=answers, clashes=1, chosen_logprob=-41.123456,
                rejected_logprob=-44.654321)
        for round_ in range(400)
    )  # fmt: skip
    duels = tuple(made_duel(str(number), "word " * 2000, "other " * 2000) for number in range(24))
    assert len(render_report(made_report(rows=rows, duels=duels)).encode()) < 2_000_000
