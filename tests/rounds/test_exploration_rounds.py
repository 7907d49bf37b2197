"""Whole rounds with an epistemic reward model, in a directory: its steps in the order of the data."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from oatflow.components.errors import LedgerError, RefusedInput, SettingsError
from oatflow.components.ledger import layout
from oatflow.components.ledger.ledger import Ledger
from oatflow.components.records.plan import STARTING_MODEL
from oatflow.components.records.records import Candidate, Duel, KnownReward, Preference
from oatflow.components.records.table import from_parquet
from oatflow.components.reporting.curves import measure_round, read_rounds
from oatflow.components.reward_model import encoder
from oatflow.components.reward_model.beliefs import predict_rewards
from oatflow.components.reward_model.checkpoint import features_from_bytes, from_bytes, replay_from_bytes
from oatflow.components.reward_model.settings import RewardModelSettings
from oatflow.components.rounds.closing import close_round
from oatflow.components.rounds.opening import NOTHING_TO_DO, open_round
from oatflow.components.rounds.steps import run_evaluation, run_fit, run_labeling, run_sampling, run_train
from oatflow.components.store.local import LocalStore
from oatflow.pipelines.alignment.config import gather
from oatflow.pipelines.data.export import files_to_export

SMALL = {"rollout_batch_size": "8", "max_queries": "24", "max_eval": "6", "num_samples": "5", "num_ensemble": "4"}
SEA = {**SMALL, "exp_method": "EnnBAITS", "reward": "length"}
MIXED = {**SEA, "model_rollout": "true", "burn_in_period": "1", "max_model_data_ratio": "0.5"}


KILLED = {**MIXED, "max_queries": "16"}


class Killed(BaseException):
    """Ends a run in the middle of a write."""


class Experiment:
    """An experiment whose rounds are run here, step by step."""

    def __init__(self, folder: Path, settings: dict[str, str]):
        self.uri = f"file://{folder}/ledger"
        self.settings = gather("scripted", None, settings)
        self.log = folder / "asked"

    def run(self, run: str = "run") -> Ledger:
        settings = self.settings.model_dump(mode="json")
        while (round_ := open_round(self.uri, settings, run)) != NOTHING_TO_DO:
            ledger = Ledger.open(self.uri)
            fit = (run_fit,) if ledger.read_plan(round_).learns_rewards else ()
            for step in (run_sampling, run_labeling, *fit, run_train, run_evaluation):
                step(ledger, round_, run)
            close_round(self.uri, round_, run)
        return Ledger.open(self.uri)

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.uri)

    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    def begin(settings, name="experiment"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setenv("OATFLOW_ORACLE_LOG", str(folder / "asked"))
        return Experiment(folder, settings)

    return begin


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Return what plays an experiment once for all tests that read its ledger and write nothing."""
    kept = {}

    def play(settings):
        name = repr(settings)
        if name not in kept:
            folder = tmp_path_factory.mktemp("played")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("OATFLOW_ORACLE_LOG", str(folder / "asked"))
                kept[name] = Experiment(folder, settings)
                kept[name].run()
        return kept[name]

    return play


def duels_of(ledger, round_):
    return from_parquet(ledger.read_output("sampling", "duels.parquet", round_), Duel, "duels")


def preferences_of(ledger, round_):
    outputs = ledger.find_done(round_, "labeling").outputs
    names = [placed.name for placed in outputs if placed.name.startswith("preferences-")]
    return [
        row for name in names for row in from_parquet(ledger.read_output("labeling", name, round_), Preference, name)
    ]


def rewards_of(ledger, round_):
    rows = from_parquet(ledger.read_output("labeling", "rewards.parquet", round_), KnownReward, "rewards")
    return {(row.prompt_id, row.candidate): row.reward for row in rows}


def replay_of(ledger, round_):
    return replay_from_bytes(ledger.read_output("reward_model", "pairs.safetensors", round_))


def test_a_passive_experiment_has_no_reward_model_and_no_step_for_it(experiment):
    ledger = experiment({**SMALL, "num_samples": "2", "num_ensemble": "20"}).run()
    assert "reward_model" not in ledger.read_plan(0).rooms
    assert ledger.find_done(0, "reward_model") is None
    assert ledger.find_done(0, "evaluation").facts["duel_regret"] >= 0


def test_the_ensemble_goes_on_from_the_round_before_and_its_buffer_holds_all_rounds(played):
    ledger = played(SEA).ledger
    steps = [
        from_bytes(ledger.read_output("reward_model", "ensemble.safetensors", round_)).steps for round_ in range(3)
    ]
    assert steps == [5, 10, 15]
    buffers = [ledger.find_done(round_, "reward_model").counts["buffer"] for round_ in range(3)]
    rows = [len(preferences_of(ledger, round_)) for round_ in range(3)]
    assert buffers == [rows[0], sum(rows[:2]), sum(rows)]


def test_the_buffer_forgets_the_oldest_duels_when_it_is_full(experiment):
    ledger = experiment({**SEA, "r_buffer_maxlen": "10"}).run()
    assert [ledger.find_done(round_, "reward_model").counts["buffer"] for round_ in range(3)] == [8, 10, 10]


def test_duels_were_foretold_by_the_ensemble_of_the_round_before(played):
    ledger = played(SEA).ledger
    ensemble = from_bytes(ledger.read_output("reward_model", "ensemble.safetensors", 0))
    features = features_from_bytes(ledger.read_output("sampling", "features.safetensors", 1))
    rewards = predict_rewards(ensemble, features, RewardModelSettings()).reshape(4, 8, 5)
    for place, duel in enumerate(duels_of(ledger, 1)):
        wins = torch.sigmoid(rewards[:, place, duel.first_candidate] - rewards[:, place, duel.second_candidate])
        assert duel.predicted == pytest.approx(float(wins.mean()), abs=1e-6)
        assert duel.recommended == int(rewards[:, place].mean(0).argmax())


def test_features_of_chosen_and_rejected_answers_are_those_of_the_labels(played):
    ledger = played(SEA).ledger
    features = features_from_bytes(ledger.read_output("sampling", "features.safetensors", 0))
    candidates = from_parquet(ledger.read_output("sampling", "candidates.parquet", 0), Candidate, "candidates")
    place = {(row.prompt_id, row.candidate): number for number, row in enumerate(candidates)}
    replay = replay_of(ledger, 0)
    by_id = {duel.duel_id: duel for duel in duels_of(ledger, 0)}
    for row, preference in enumerate(preferences_of(ledger, 0)):
        duel = by_id[preference.duel_id]
        sides = {"first": duel.first_candidate, "second": duel.second_candidate}
        if preference.chosen:
            assert torch.equal(replay.chosen[row], features[place[duel.prompt_id, sides.pop(preference.chosen)]])
            assert torch.equal(replay.rejected[row], features[place[duel.prompt_id, *sides.values()]])
        assert bool(replay.kept[row]) == (preference.chosen is not None)


def test_the_oracle_is_never_asked_about_a_synthetic_pair_and_the_reward_model_never_learns_from_it(played):
    run = played(MIXED)
    ledger = run.ledger
    duels = [duel for round_ in range(3) for duel in duels_of(ledger, round_)]
    made = {duel.duel_id for duel in duels if duel.synthetic}
    assert len(made) > 4 and not made.intersection(run.asked())
    preferences = [row for round_ in range(3) for row in preferences_of(ledger, round_)]
    for preference in preferences:
        if preference.duel_id in made:
            assert preference.synthetic and preference.oracle.startswith("member ")
            assert preference.chosen == ("first" if preference.first_wins > 0.5 else "second")
    kept = torch.cat([replay_of(ledger, round_).kept for round_ in range(3)])
    assert [bool(learned) for learned in kept] == [
        row.chosen is not None and row.duel_id not in made for row in preferences
    ]
    spent = sum(ledger.find_done(round_, "labeling").counts["queries"] for round_ in range(3))
    assert spent == len(set(run.asked()) & {duel.duel_id for duel in duels})


def test_the_policy_learns_from_synthetic_pairs(played):
    ledger = played(MIXED).ledger
    clashes = sum(row.clash for row in preferences_of(ledger, 2))
    assert ledger.find_done(2, "policy").counts["pairs"] == len(preferences_of(ledger, 2)) - clashes


@pytest.mark.slow
def test_in_oats_way_the_oracle_is_asked_about_synthetic_pairs_and_each_query_counts(experiment):
    run = experiment({**MIXED, "model_data_label": "oracle", "rm_mask": "broadcast"})
    ledger = run.run()
    made = {duel.duel_id for round_ in range(3) for duel in duels_of(ledger, round_) if duel.synthetic}
    assert made <= set(run.asked())
    assert ledger.find_done(1, "labeling").counts["queries"] == len(
        {d.duel_id for d in duels_of(ledger, 1) if not d.clash}
    )
    assert all(row.oracle.startswith("simulated") for row in preferences_of(ledger, 1) if row.duel_id in made)


def test_no_text_is_encoded_twice_in_an_experiment(experiment, monkeypatch):
    encoded = Counter()
    encode = encoder.ScriptedEncoder.encode

    def noted(self, texts):
        encoded.update(texts)
        return encode(self, texts)

    monkeypatch.setattr(encoder.ScriptedEncoder, "encode", noted)
    # Ten prompts and rounds of eight: prompts come again, and the scripted policy says many a thing again.
    ledger = experiment({**SEA, "max_train": "10"}).run()
    drawn = [
        row
        for round_ in range(3)
        for row in from_parquet(ledger.read_output("sampling", "candidates.parquet", round_), Candidate, "candidates")
    ]
    assert len(encoded) < len(drawn)
    assert set(encoded.values()) == {1}


def test_regret_is_the_best_candidates_reward_less_the_mean_of_both_answers(played):
    ledger = played(SEA).ledger
    total, means = 0.0, []
    for round_ in range(3):
        rewards, regrets, simple = rewards_of(ledger, round_), [], []
        for duel in duels_of(ledger, round_):
            own = [rewards[duel.prompt_id, number] for number in range(5)]
            regrets.append(max(own) - (own[duel.first_candidate] + own[duel.second_candidate]) / 2)
            simple.append(max(own) - own[duel.recommended])
        row = read_rounds(ledger)[round_].explored
        total += sum(regrets)
        assert row.duel_regret == pytest.approx(sum(regrets) / len(regrets))
        assert row.simple_regret == pytest.approx(sum(simple) / len(simple))
        assert row.regret_total == pytest.approx(total)
        means.append(row.simple_regret)
        assert row.anytime_regret == pytest.approx(sum(means) / len(means))


def test_metrics_of_a_round_carry_what_exploration_was_worth(played):
    ledger = played(SEA).ledger
    assert {"duel_regret", "simple_regret", "rm_accuracy", "rm_brier", "rm_ece", "uncertainty_all"} <= set(
        measure_round(ledger, 1)
    )


@pytest.mark.slow
def test_to_explore_and_exploit_both_members_of_each_duel_meet_the_opponent(experiment):
    run = experiment({**SEA, "objective": "explore_and_exploit", "eval_every": "2"})
    ledger = run.run()
    for round_ in range(3):
        done = ledger.find_done(round_, "evaluation")
        assert done.counts["online_prompts"] == len(duels_of(ledger, round_)) == 8
        assert 0 < done.counts["online_queries"] <= 16
        assert 0 <= done.facts["online_low"] <= done.facts["online_win_rate"] <= done.facts["online_high"] <= 1
    # Budgets are for labels alone.
    assert sum(ledger.find_done(round_, "labeling").counts["queries"] for round_ in range(3)) <= 24
    assert (
        "win_rate" not in ledger.find_done(0, "evaluation").facts
        and "win_rate" in ledger.find_done(1, "evaluation").facts
    )


@pytest.mark.slow
def test_of_several_draws_the_ensemble_picks_the_answer_that_is_judged(experiment):
    settings = {**SEA, "max_queries": "16"}
    plain, best = experiment(settings, "plain").run(), experiment({**settings, "num_bon": "6"}, "best").run()
    assert duels_of(plain, 0) == duels_of(best, 0)
    # The ensemble learns that long answers win; the best of six by it is longer than the policy's one answer.
    lengths = [
        done.facts["mean_reward"] for done in (plain.find_done(1, "evaluation"), best.find_done(1, "evaluation"))
    ]
    assert lengths[1] > lengths[0]
    generated = [
        done.counts["generated_tokens"] for done in (plain.find_done(1, "evaluation"), best.find_done(1, "evaluation"))
    ]
    assert generated[1] > 3 * generated[0]  # every draw counts, not the best alone


def test_a_reward_model_alone_leaves_the_policy_as_it_was(experiment):
    ledger = experiment({**SEA, "learn_rm_only": "true", "max_queries": "16"}).run()
    for round_ in (0, 1):
        assert ledger.policy_after(round_).round == STARTING_MODEL
        assert ledger.read_plan(round_).sampler.digest == ledger.experiment.starting_model
    assert not ledger.find_done(0, "policy").outputs
    with pytest.raises(RefusedInput):
        files_to_export(ledger, 0, adapter=False)


def test_a_round_without_its_reward_model_is_not_closed(experiment):
    run = experiment(SEA)
    settings = run.settings.model_dump(mode="json")
    open_round(run.uri, settings, "run")
    ledger = Ledger.open(run.uri)
    for step in (run_sampling, run_labeling, run_train):
        step(ledger, 0, "run")
    with pytest.raises(LedgerError, match="reward_model"):
        run_evaluation_without_reward_model(ledger, run.uri)


def run_evaluation_without_reward_model(ledger, uri):
    run_evaluation(ledger, 0, "run")
    close_round(uri, 0, "run")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"num_ensemble": "1"}, "reward_model.num_ensemble=1: exp_method='EnnBAITS'"),
        ({"exp_method": "EnnBAIT"}, "did you mean 'EnnBAITS'?"),
        ({"exp_method": "passive"}, "reward_model.num_ensemble=4: exp_method='passive' learns no reward model"),
        ({"burn_in_period": "3"}, "exploration.burn_in_period=3: no synthetic pairs are made"),
        ({"exp_method": "passive", "num_ensemble": "20", "num_bon": "4"}, "evaluation.num_bon=4"),
        ({"ucb_beta": "2"}, "exploration.ucb_beta=2.0: exp_method='EnnBAITS' ignores it"),
        ({"exp_method": "DRTS", "exp_law": "oat"}, "exploration.exp_law='oat'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(flags, named):
    with pytest.raises(SettingsError) as refused:
        gather("scripted", None, {**SEA, **flags})
    assert named in str(refused.value)


def truth(ledger: Ledger) -> dict[str, bytes]:
    """The bytes of all that the ensemble had a part in."""
    wanted = ("plan.json", "features.safetensors", "duels.parquet", "pairs.safetensors", "ensemble.safetensors")
    keys = [entry.key for entry in ledger.store.list("rounds/") if "/digests/" not in entry.key]
    return {key: ledger.store.get(key).data for key in keys if key.endswith(wanted) or "preferences-" in key}


def dying_at(monkeypatch, kill_at, before):
    """Let the store's n-th conditional write be the last thing that a run does, or fail to do."""
    written = 0
    original = LocalStore.put_if_absent

    def deadly(self, key, data):
        nonlocal written
        written += not key.startswith("_proof/")
        if written == kill_at and before and not key.startswith("_proof/"):
            raise Killed
        outcome = original(self, key, data)
        if written == kill_at and not key.startswith("_proof/"):
            raise Killed
        return outcome

    monkeypatch.setattr(LocalStore, "put_if_absent", deadly)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return truth(Experiment(tmp_path_factory.mktemp("undisturbed"), KILLED).run())


@pytest.mark.parametrize(
    ("kill_at", "before"),
    [
        (6, True),
        *(
            pytest.param(*at, marks=pytest.mark.slow)
            for at in [(9, False), (15, False), (13, True), (24, True), (28, False)]
        ),
    ],
)
def test_killed_and_started_again_the_ensemble_and_its_duels_are_the_same_to_the_byte(
    experiment, undisturbed, monkeypatch, kill_at, before
):
    assert any(key.endswith("ensemble.safetensors") for key in undisturbed)
    run = experiment(KILLED)
    with monkeypatch.context() as patch:
        dying_at(patch, kill_at, before)
        with pytest.raises(Killed):
            run.run()
    assert truth(run.run()) == undisturbed


def test_layout_names_the_room_between_policy_and_evaluation():
    assert layout.ROOMS.index("policy") < layout.ROOMS.index("reward_model") < layout.ROOMS.index("evaluation")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        # 2 rounds of 64, then 45 queries a round for the 128 that are left.
        ({"exp_method": "EnnEETS", "model_rollout": "true", "burn_in_period": "2"}, 5),
        ({"exp_method": "EnnEETS", "model_rollout": "true", "burn_in_period": "2", "model_data_label": "oracle"}, 4),
        ({"exp_method": "EnnEETS", "model_rollout": "true", "burn_in_period": "9"}, 4),
        ({"exp_method": "EnnEETS", "model_rollout": "true", "burn_in_period": "2", "pure_model_based": "true"}, 4),
        ({"exp_method": "EnnEETS", "model_rollout": "true", "burn_in_period": "2", "max_model_data_ratio": "1"}, 4),
        ({"exp_method": "APL", "apl_keep": "16"}, 16),
        ({"exp_method": "passive"}, 4),
    ],
)
def test_an_experiment_has_as_many_rounds_as_its_budget_pays_for(flags, expected):
    assert gather("scripted", None, {"rollout_batch_size": "64", "max_queries": "256", **flags}).rounds == expected
