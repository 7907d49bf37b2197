"""The prompt set of the demonstration: big enough, varied, neutral, and held out honestly."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path

import oatflow.components.prompts as room
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

FOLDER = Path(room.__path__[0]) / "reviews"
SPLITS = ("train", "test")

# Words that ask, not words that are asked about.
ASKING = set(
    re.findall(
        r"\S+",
        """
        a about after an and answer app app-store as ask at audience beginner book boss brief briefly brother
        buyer by class colleague comment course cousin coworker critic customer day describe did do evaluation
        film find finish first flatmate for friend from game give go grandfather group guest have how i in is
        it judge know leave lesson line make museum music neighbour new night of on one one-line one-sentence
        opinion or our parent people post product program rate read reading reply restaurant review s say sentenc
        sentence short should single store sum summarise teammate tell tested that the their thi think this to
        travel two user verdict visit visitor wa was were what who with word would write writer you your
        """,
    )
)


def prompts(split: str) -> list[str]:
    return [json.loads(line)["prompt"] for line in (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()]


def words(prompt: str) -> list[str]:
    return [re.sub(r"(es|s)$", "", word) for word in re.findall(r"[\w'-]+", prompt.lower())]


def subject(prompt: str) -> frozenset[str]:
    return frozenset(word for word in words(prompt) if len(word) > 2) - ASKING


def opening(prompt: str) -> str:
    return " ".join(words(prompt)[:3])


@pytest.mark.parametrize(("split", "least"), [("train", 480), ("test", 128)])
def test_there_are_enough_prompts_and_each_is_one_plain_object(split: str, least: int) -> None:
    lines = (FOLDER / f"{split}.jsonl").read_text("utf-8").splitlines()
    assert len(lines) >= least
    for line in lines:
        row = json.loads(line)
        assert list(row) == ["prompt"]
        assert row["prompt"] == row["prompt"].strip() != ""


def test_no_prompt_occurs_twice() -> None:
    spelled = Counter(" ".join(words(prompt)) for split in SPLITS for prompt in prompts(split))
    assert [prompt for prompt, count in spelled.items() if count > 1] == []


def test_no_held_out_subject_is_learned_from() -> None:
    learned, held_out = [subject(p) for p in prompts("train")], [subject(p) for p in prompts("test")]
    assert all(learned) and all(held_out)
    shared = [sorted(a & b) for a, b in product(learned, held_out) if a == b or len(a & b) > 1]
    assert shared == []


@pytest.mark.parametrize("split", SPLITS)
def test_prompts_are_short(split: str) -> None:
    longest = max(prompts(split), key=len)
    assert len(longest) <= 100, longest
    assert max(len(words(prompt)) for prompt in prompts(split)) <= 25


@pytest.mark.parametrize(("split", "least"), [("train", 100), ("test", 50)])
def test_prompts_ask_in_many_ways(split: str, least: int) -> None:
    openings = Counter(map(opening, prompts(split)))
    assert len(openings) >= least
    assert openings.most_common(1)[0][1] <= len(prompts(split)) / 8


@pytest.mark.parametrize("split", SPLITS)
def test_every_stretch_of_the_file_is_varied(split: str) -> None:
    rows = prompts(split)
    for start in range(0, len(rows) - 32, 32):
        assert len({opening(prompt) for prompt in rows[start : start + 32]}) >= 16


@pytest.mark.parametrize("split", SPLITS)
def test_no_prompt_leans_towards_a_sentiment(split: str) -> None:
    score = SentimentIntensityAnalyzer().polarity_scores
    leaning = [prompt for prompt in prompts(split) if abs(score(prompt)["compound"]) > 0.21]
    assert leaning == []
