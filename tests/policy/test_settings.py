"""What the policy's settings refuse before anything is computed, and what its errors say."""

import re

import pytest
from oatflow.components.errors import SettingsError
from oatflow.components.policy.registry import LOSSES
from oatflow.components.policy.settings import PolicySettings
from oatflow.components.rounds.experiment import ExperimentSettings

# A value of each setting of a loss that is not its default.
GIVEN = {
    "beta": 0.7, "label_smoothing": 0.1, "len_reg_alpha": 0.2, "dpo_positive_lambda": 5.0, "sft_weight": 0.3,
    "gamma_beta_ratio": 0.6, "ipo_per_token": True, "bnf_length": "batch", "xpo_alpha": 1e-4,
}  # fmt: skip
ALGORITHMS = pytest.mark.parametrize("algo", LOSSES)


def error(**policy):
    """Return the error that refuses an experiment with these settings."""
    with pytest.raises(SettingsError) as refused:
        ExperimentSettings.parse({"policy": policy})
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("DPO", "dpo"), ("IPO", "ipo"), ("SLiC", "slic"), ("SimPO", "simpo"), ("LR_DPO", "lr_dpo"), ("LR-DPO", "lr_dpo"),
     ("lr-dpo", "lr_dpo"), ("BNF", "bnf"), ("dpo", "dpo")],
)  # fmt: skip
def test_a_loss_may_be_spelled_as_in_oat(written, meant):
    assert ExperimentSettings.parse({"policy": {"dap_algo": written}}).policy.dap_algo == meant


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("dpp", "policy.dap_algo='dpp': unknown; did you mean 'dpo'?"),
        ("SimPOO", "policy.dap_algo='SimPOO': unknown; did you mean 'simpo'?"),
        ("ppo-clip", "policy.dap_algo='ppo-clip': unknown; known: bnf, dpo, ipo, lr_dpo, simpo, slic"),
        (None, "policy.dap_algo=None: unknown; known: bnf, dpo, ipo, lr_dpo, simpo, slic"),
    ],
)
def test_an_unknown_loss_is_refused_with_a_suggestion(written, told):
    assert error(dap_algo=written) == told


@ALGORITHMS
def test_what_a_loss_reads_may_be_set_with_it(algo):
    chosen = {name: GIVEN[name] for name in LOSSES[algo].reads}
    found = PolicySettings.parse({"dap_algo": algo, **chosen})
    assert {name: getattr(found, name) for name in chosen} == chosen


@ALGORITHMS
def test_everything_that_a_loss_ignores_is_named_in_one_error_with_the_losses_that_read_it(algo):
    ignored = sorted(GIVEN.keys() - LOSSES[algo].reads)
    expected = [
        f"policy.{name}={GIVEN[name]!r}: dap_algo={algo!r} ignores it; leave it out, or use a loss that reads it "
        f"({', '.join(sorted(other for other in LOSSES if name in LOSSES[other].reads))})"
        for name in ignored
    ]
    assert error(dap_algo=algo, **{name: GIVEN[name] for name in ignored}) == "; ".join(expected)


def test_every_setting_of_a_loss_is_read_by_one():
    assert frozenset().union(*(loss.reads for loss in LOSSES.values())) == GIVEN.keys()
    for name, value in GIVEN.items():
        assert PolicySettings.model_fields[name].default != value


@ALGORITHMS
def test_settings_in_full_with_their_defaults_are_never_refused(algo):
    frozen = PolicySettings(dap_algo=algo).model_dump(mode="json")
    assert PolicySettings.parse(frozen).model_dump(mode="json") == frozen


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"beta": 0}, "policy.beta=0: input should be greater than 0"),
        ({"beta": -0.1}, "policy.beta=-0.1: input should be greater than 0"),
        ({"beta": float("nan")}, "policy.beta=nan: input should be a finite number"),
        ({"beta": float("inf")}, "policy.beta=inf: input should be a finite number"),
        ({"label_smoothing": 0.5}, "policy.label_smoothing=0.5: input should be less than 0.5"),
        ({"label_smoothing": -0.1}, "policy.label_smoothing=-0.1: input should be greater than or equal to 0"),
        ({"bnf_length": "row", "dap_algo": "bnf"}, "policy.bnf_length='row': input should be 'pair' or 'batch'"),
        ({"loss_reduction": "sum"}, "policy.loss_reduction='sum': input should be 'kept' or 'all'"),
        ({"max_sgd_steps": 0}, "policy.max_sgd_steps=0: input should be greater than or equal to 1"),
        ({"sync_params_every": 0}, "policy.sync_params_every=0: input should be greater than or equal to 1"),
        ({"lora_rank": -1}, "policy.lora_rank=-1: input should be greater than or equal to 0"),
        ({"betta": 0.2}, "policy.betta=0.2: unknown setting; did you mean 'beta'?"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(policy, told):
    assert error(**policy) == told


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (
            {"adam_offload": True, "zero_stage": 0},
            "policy.adam_offload=True: zero_stage=0 keeps everything where the model is; use zero_stage 1, 2 or 3",
        ),
        (
            {"lora_targets": "q_proj"},
            "policy.lora_targets='q_proj': no adapter is trained; set lora_rank, 8 for example",
        ),
        ({"lora_alpha": 32}, "policy.lora_alpha=32: no adapter is trained; set lora_rank, 8 for example"),
        (
            {"lora_rank": 8, "lora_targets": "q_proj,,v_proj"},
            "policy.lora_targets='q_proj,,v_proj': a name is empty; write q_proj,v_proj",
        ),
        (
            {"lora_rank": 8, "lora_targets": ""},
            "policy.lora_targets='': a name is empty; write q_proj,v_proj",
        ),
        (
            {"buffer_clear_every": 3},
            "policy.buffer_clear_every=3: no older preferences are kept; set pi_buffer_maxlen too",
        ),
        (
            {"lr_scheduler": "polynomial", "min_lr_ratio": 0.2},
            "policy.min_lr_ratio=0.2: lr_scheduler='polynomial' has no such floor; leave it out",
        ),
        (
            {"lr_scheduler": "constant", "lr_warmup_ratio": 0.1},
            "policy.lr_warmup_ratio=0.1: lr_scheduler='constant' has no warm-up; leave it out",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_next_step(policy, told):
    assert error(**policy) == told


@pytest.mark.parametrize(
    "policy",
    [
        {"adam_offload": True, "zero_stage": 1},
        {"lora_rank": 8, "lora_alpha": 32, "lora_targets": "q_proj, v_proj"},
        {"pi_buffer_maxlen": 256, "buffer_clear_every": 3},
        {"lr_scheduler": "constant", "lr_warmup_ratio": 0.0},
        {"lr_scheduler": "polynomial", "lr_warmup_ratio": 0.1},
    ],
)
def test_settings_that_agree_are_accepted(policy):
    found = ExperimentSettings.parse({"policy": policy}).policy
    assert {name: getattr(found, name) for name in policy} == policy


def test_all_contradictions_come_in_one_error_beside_those_of_other_rooms():
    with pytest.raises(SettingsError) as refused:
        ExperimentSettings.parse(
            {
                "policy": {"dap_algo": "slic", "sft_weight": 0.1, "adam_offload": True, "zero_stage": 0},
                "sampling": {"temperature": -1.0},
            }
        )
    told = str(refused.value)
    assert re.findall(r"\w+\.\w+=", told) == ["sampling.temperature=", "policy.sft_weight=", "policy.adam_offload="]
    # A section's error names its settings, and does not repeat the section as it was given.
    assert "policy={" not in told and "Value error" not in told


def test_a_section_that_is_none_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"^policy=3: input should be a valid dictionary"):
        ExperimentSettings.parse({"policy": 3})


@ALGORITHMS
def test_only_simpo_does_without_a_reference(algo):
    assert PolicySettings(dap_algo=algo).loss.needs_reference == (algo != "simpo")
