"""The built-in preference set: made from the reviews, varied, and decided by warmth alone."""

import json
import runpy
from pathlib import Path
from statistics import fmean

import oatflow.components.prompts as room
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

FOLDER = Path(room.__path__[0]) / "review-preferences"
MADE = runpy.run_path(str(Path(__file__).with_name("make_review_preferences.py")))
SPLITS = {"train": 256, "test": 128}


def rows(split):
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()]


def words(text):
    return len(text.split())


@pytest.mark.parametrize("split", SPLITS)
def test_anyone_can_make_the_set_again_to_the_same_bytes(split):
    assert MADE["text"](split) == (FOLDER / f"{split}.jsonl").read_text("utf-8")


@pytest.mark.parametrize(("split", "count"), SPLITS.items())
def test_every_row_has_a_prompt_of_the_reviews_and_two_different_answers(split, count):
    reviews = (FOLDER.parent / "reviews" / f"{split}.jsonl").read_text("utf-8").splitlines()
    known = {json.loads(line)["prompt"] for line in reviews}
    assert len(rows(split)) == len({row["prompt"] for row in rows(split)}) == count
    for row in rows(split):
        assert list(row) == ["prompt", "chosen", "rejected"]
        assert row["prompt"] in known and row["chosen"] != row["rejected"]
        assert max(words(row["chosen"]), words(row["rejected"])) <= 30


@pytest.mark.parametrize("split", SPLITS)
def test_the_chosen_answer_is_the_warmer_one(split):
    score = SentimentIntensityAnalyzer().polarity_scores
    assert [row for row in rows(split) if score(row["chosen"])["compound"] <= score(row["rejected"])["compound"]] == []


@pytest.mark.parametrize("split", SPLITS)
def test_length_does_not_tell_which_answer_is_better(split):
    table = rows(split)
    chosen, rejected = ([words(row[side]) for row in table] for side in ("chosen", "rejected"))
    assert abs(fmean(chosen) - fmean(rejected)) < 0.5
    longer = fmean((a > b) + (a == b) / 2 for a, b in zip(chosen, rejected, strict=True))
    assert 0.4 < longer < 0.6


@pytest.mark.parametrize("split", SPLITS)
def test_either_side_is_said_in_many_ways(split):
    assert len(MADE["WARM_AND_COLD"]) >= 30
    for side in ("chosen", "rejected"):
        openings = [" ".join(row[side].split()[:3]) for row in rows(split)]
        assert len(set(openings)) >= 30
        assert max(map(openings.count, openings)) <= len(openings) / 8
