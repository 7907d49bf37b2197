"""Labels turned round by noise, beside Oat's own frequencies."""

import json
import math
from pathlib import Path

import pytest
from oatflow.components.labeling.labels import choose_labeler, flip_label, pick_likelier
from oatflow.components.labeling.settings import LabelingSettings
from oatflow.components.seeds import derive

from .conftest import duel

OAT = json.loads((Path(__file__).parents[1] / "golden" / "oat_oracles.json").read_text())["actor_step"]
CHANCES = OAT["deterministic_label"]["P(first wins)"]
DRAWS = 5000


def first_chosen(settings, chance):
    label = choose_labeler(LabelingSettings(**settings), 7, 0)
    return sum(label(duel(number), chance) == "first" for number in range(DRAWS))


def deviations(count, probability):
    return abs(count - DRAWS * probability) / math.sqrt(DRAWS * probability * (1 - probability))


def test_labels_are_those_of_oat():
    rows = OAT["deterministic_label"]["rows"]
    expected = ["first" if row["chosen_id"] == 0 else "second" for row in rows]
    for chance, row, label in zip(CHANCES, rows, expected, strict=True):
        if row["loss_mask_keep"]:
            assert pick_likelier(chance) == label


@pytest.mark.parametrize("number", range(len(CHANCES)))
def test_drawn_and_flipped_labels_are_as_frequent_as_their_law_says_and_as_in_oat(number):
    chance = CHANCES[number]
    drawn = first_chosen({"bt_sample": True}, chance)
    assert deviations(drawn, chance) < 5
    assert abs(drawn / DRAWS - OAT["bt_sample_freq_first_chosen"]["freq"][number]) < 0.05
    flipped = first_chosen({"preference_flip_prob": 0.2}, chance)
    assert deviations(flipped, 0.8 if chance > 0.5 else 0.2) < 5
    assert abs(flipped / DRAWS - OAT["flip_0.2_freq_first_chosen"]["freq"][number]) < 0.05


def test_no_noise_turns_nothing_and_full_noise_everything():
    seeds = [derive(0, number) for number in range(100)]
    assert {flip_label("first", 0.0, seed) for seed in seeds} == {"first"}
    assert {flip_label("first", 1.0, seed) for seed in seeds} == {"second"}


def test_noise_has_a_draw_of_its_own():
    label = choose_labeler(LabelingSettings(bt_sample=True, preference_flip_prob=0.5), 7, 0)
    plain = choose_labeler(LabelingSettings(bt_sample=True), 7, 0)
    agreed = sum(label(duel(number), 0.3) == plain(duel(number), 0.3) for number in range(DRAWS))
    assert deviations(agreed, 0.5) < 5
