import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from oatflow.components.ledger import layout
from oatflow.components.ledger.sealed import seal
from oatflow.components.reporting.page import fold, markdown_report, render, write_report

VOID = {"meta", "link", "br", "path", "use", "rect", "clippath"}
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
    page, tame = Page(render(made_report(duels=duels))), Page(render(made_report(duels=(made_duel(), made_duel()))))
    assert page.tags() == tame.tags()
    assert page.text.count("<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} & \"'\ufffd\ufffd") == 3


def test_hostile_names_and_settings_stay_text(made_report):
    names = {
        "name": HOSTILE,
        "oracle": HOSTILE,
        "settings": {HOSTILE: {HOSTILE: HOSTILE}},
        "software": {HOSTILE: HOSTILE},
    }
    assert not {"script", "img"} & set(Page(render(made_report(**names))).tags())


def test_the_page_loads_nothing_and_runs_nothing(html):
    assert not re.search(r"https?:|//[a-z]|@import|<script|\son\w+=|src=", html)
    policy = next(attrs["content"] for tag, attrs in Page(html).elements if attrs.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
    html = render(made_report(duels=(made_duel(first_wins=first_wins),), verdicts=()))
    assert re.findall(r'class="verdict">([^<]+)<', html) == marks
    assert re.findall(r"probability (\d+)%", html) == [f"{100 * first_wins:.0f}", f"{100 - 100 * first_wins:.0f}"]


def test_a_synthetic_pair_is_marked_and_the_oracle_is_not_named_for_it(made_report, made_duel):
    told = {"strategy": "EnnBAITS", "synthetic": True, "member": 7, "member_first_wins": 0.9, "predicted": 0.6}
    duels = (made_duel(**told), made_duel(strategy="EnnBAITS", synthetic=False, predicted=0.53, uncertainty=0.018))
    text = " ".join(Page(render(made_report(duels=duels))).text.split())
    assert "labelled by member 7 of the ensemble, the oracle was not asked." in text
    assert "The probability is simulated/vader-3.3.2/T=0.1’s, or of a synthetic pair the member’s, that this" in text
    assert "Picked by EnnBAITS. Foretold by the ensemble: the first wins with 53% ± 1.8 points." in text
    assert "oretold" not in Page(render(made_report())).text and "ynthetic" not in Page(render(made_report())).text


def test_a_page_of_exploration_says_what_its_columns_mean(made_report, made_explored_row):
    rows = tuple(made_explored_row(round_, synthetic=5 * round_) for round_ in range(3))
    html = render(made_report(rows=rows, settings={"exploration": {"exp_method": "EnnBAITS"}}))
    page = Page(html)
    text = " ".join(page.text.split())
    assert "<dt>Synthetic pairs</dt><dd>15 " in html and "<dt>Duels picked by</dt><dd>EnnBAITS " in html
    for said in ("The regret of a duel is", "The online win rate is", "Foreseen is", "A synthetic pair is"):
        assert said in text and said not in Page(render(made_report())).text
    assert page.tags().count("figure") == 8


def test_a_page_of_a_policy_that_is_not_trained_does_not_claim_that_it_learned(made_report):
    text = Page(render(made_report(settings={"policy": {"learn_rm_only": True}, "evaluation": {"num_bon": 10}}))).text
    assert "Duels the reward model learned from" in text and "The policy stays the starting model" in text
    assert "the policy was drawn towards" not in text and "Policy after round" not in text
    assert "the one of 10 that its reward model thinks best" in " ".join(text.split())


def test_the_same_report_gives_the_same_bytes(made_report, html):
    assert render(made_report()) == html


def test_a_report_before_the_first_round_says_so(made_report):
    html = render(made_report(rows=(), rounds=None, duels=(), verdicts=()))
    assert "No round is finished yet" in Page(html).text
    assert "figure" not in Page(html).tags()


def test_a_report_comes_from_the_ledger_alone(ledger):
    text = Page(write_report(ledger)).text
    assert "After 2 queries the policy wins 75% [50, 100] of 4 held-out prompts against the starting model" in text
    assert ledger.head().digest in text
    assert markdown_report(ledger).startswith("# first-light\n\nAfter 2 queries")


def test_a_page_of_an_offline_experiment_shows_what_was_measured_and_no_more(made_report, made_offline_row):
    report = made_report(rows=(made_offline_row(0), made_offline_row(1)), verdicts=(), oracle="preference set")
    page = Page(render(report))
    assert [name for name in page.ids if name in ("win-rate", "held-out", "reward", "margin", "seconds")] == [
        "held-out", "margin", "seconds",
    ]  # fmt: skip
    assert "Preferences read" in page.text and "Preferences the policy learned from" in page.text
    for never in ("Oracle queries", "Win rate", "probability", "win rate", "queries"):
        assert never not in page.text.partition("Settings, versions, digests")[0], never


def test_the_judge_of_an_offline_experiment_is_who_judged_and_not_the_set(offline_ledger):
    assert "judged by" not in write_report(offline_ledger)
    done = offline_ledger.done(1, "evaluation")
    facts = {"win_rate": 0.75, "low": 0.5, "high": 1.0, "oracle": "the judge"}
    judged = seal(replace(done, counts={"prompts": 4}, facts=facts).to_json())
    offline_ledger.store.put(layout.done(1, "evaluation"), judged)
    assert "After 5 preferences the policy wins 75% [50, 100] of 4" in write_report(offline_ledger)
    assert "judged by the judge" in write_report(offline_ledger)


@pytest.mark.parametrize("text", ["", "short", "word " * 40, "x" * 101, "a\n" * 200])
def test_folding_loses_nothing(text):
    shown, folded = fold(text, 100)
    assert shown + folded == text
    assert len(shown) <= 100
    assert bool(folded) == (len(text) > 100)
