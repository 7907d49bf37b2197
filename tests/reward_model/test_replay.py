"""Which duels the ensemble may learn from again."""

import json
from pathlib import Path

import pytest
import torch
from oatflow.components.reward_model.replay import Replay

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "oat_exploration.json").read_text())


def duels(numbers, kept=None):
    """Return duels whose features tell which they are: n for the chosen answer, -n for the rejected one."""
    column = torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1)
    return Replay(column, -column, torch.tensor([True] * len(numbers) if kept is None else kept, dtype=torch.bool))


def numbers_of(replay):
    assert torch.equal(replay.rejected, -replay.chosen)
    return replay.chosen[:, 0].tolist()


def test_a_full_buffer_forgets_the_oldest_as_oats_does():
    golden = GOLDEN["reward_buffer"]
    replay = Replay.empty(1)
    for entry in golden["log"]:
        replay = replay.extended(duels(entry["extend_with"]), golden["max_len"])
        assert len(replay) == entry["size"]
        # Oat's is a ring; ours has the newest last.
        assert numbers_of(replay) == sorted(entry["storage_slots"])


def test_of_more_new_duels_than_fit_the_newest_stay():
    assert numbers_of(duels([1, 2]).extended(duels([3, 4, 5, 6]), 3)) == [4, 5, 6]


def test_the_mask_stays_with_its_duel():
    replay = duels([1, 2], [True, False]).extended(duels([3, 4], [False, True]), 3)
    assert (numbers_of(replay), replay.kept.tolist()) == ([2, 3, 4], [False, False, True])
    for seed in range(20):
        drawn = replay.draw_batch(2, seed)
        assert drawn.kept.tolist() == [number == 4 for number in numbers_of(drawn)]


def test_clashes_and_synthetic_pairs_are_stored_and_masked_as_oats():
    golden = GOLDEN["dap_with_rm"]
    pairs = torch.tensor(golden["pair_features_B_2_d(0=chosen)"])
    kept = [keep and not synthetic for keep, synthetic in golden["rows(keep,is_model_data)"]]
    replay = Replay.empty(2).extended(Replay(pairs[:, 0], pairs[:, 1], torch.tensor(kept)), 50)
    assert len(replay) == golden["buffer_size"]
    assert replay.kept.float().tolist() == golden["stored_loss_masks"]
    assert torch.equal(torch.stack([replay.chosen, replay.rejected], 1), pairs)


def test_a_draw_has_no_duel_twice():
    golden = GOLDEN["reward_buffer"]
    replay = duels(sorted(golden["log"][-1]["storage_slots"]))
    sizes = {len(set(draw)) for draw in golden["sample_3_without_replacement(np seed 0)"]}
    assert {len(set(numbers_of(replay.draw_batch(3, seed)))) for seed in range(50)} == sizes == {3}


def test_each_duel_is_drawn_equally_often():
    replay, draws = duels(range(5)), 4000
    counts = torch.zeros(5)
    for seed in range(draws):
        counts[replay.draw_batch(2, seed).chosen[:, 0].long()] += 1
    share, sigma = 2 / 5, (2 / 5 * 3 / 5 / draws) ** 0.5
    assert counts.div(draws).tolist() == pytest.approx([share] * 5, abs=5 * sigma)


def test_a_draw_depends_on_its_seed_alone():
    replay = duels(range(100))
    torch.manual_seed(0)
    one = numbers_of(replay.draw_batch(10, 7))
    torch.manual_seed(1)
    assert numbers_of(replay.draw_batch(10, 7)) == one != numbers_of(replay.draw_batch(10, 8))


@pytest.mark.parametrize("size", [5, 6, 128])
def test_a_draw_of_all_or_more_is_the_buffer_itself(size):
    assert numbers_of(duels(range(5)).draw_batch(size, 3)) == [0, 1, 2, 3, 4]


def test_an_empty_buffer_and_one_of_a_single_duel_can_be_drawn_from():
    assert len(Replay.empty(3)) == len(Replay.empty(3).draw_batch(4, 0)) == 0
    assert numbers_of(duels([7]).draw_batch(4, 0)) == [7]


def test_neither_part_of_an_extended_buffer_changes():
    older, newer = duels([1, 2]), duels([3])
    older.extended(newer, 2)
    assert (numbers_of(older), numbers_of(newer)) == ([1, 2], [3])


@pytest.mark.parametrize(
    ("chosen", "rejected", "kept"), [((2, 3), (2, 4), 2), ((2, 3), (2, 3), 1), ((2,), (2,), 2), ((2, 3), (1, 3), 2)]
)
def test_tables_that_do_not_belong_together_are_refused(chosen, rejected, kept):
    with pytest.raises(ValueError, match=r"must be \(B, D\), \(B, D\) and \(B,\)"):
        Replay(torch.zeros(chosen), torch.zeros(rejected), torch.ones(kept, dtype=torch.bool))
