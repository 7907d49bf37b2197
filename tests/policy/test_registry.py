"""The losses by name: each is one registration, and nothing else knows that it exists."""

import subprocess
import sys

import pytest
import torch
from oatflow.components.errors import SettingsError
from oatflow.components.policy.objective import Completions, PairLosses, compute_losses
from oatflow.components.policy.registry import LOSSES, Loss
from oatflow.components.policy.settings import PolicySettings

ALGORITHMS = pytest.mark.parametrize("algo", list(LOSSES))


def one_pair():
    """Return a pair of one token each; the policy prefers the chosen one by log 2 more than the reference."""
    logprobs, reference = (torch.tensor(p, dtype=torch.float64).log() for p in ((0.5, 0.25), (0.25, 0.25)))
    return Completions(torch.tensor([0, 1]), logprobs, reference, torch.tensor([-1.0, -1.0], dtype=torch.float64))


@ALGORITHMS
def test_without_its_registration_a_loss_is_refused_with_a_suggestion_and_the_others_still_work(monkeypatch, algo):
    before = {name: compute_losses(one_pair(), PolicySettings(dap_algo=name)).losses.item() for name in LOSSES}
    monkeypatch.delitem(LOSSES, algo)
    with pytest.raises(SettingsError, match=rf"dap_algo='{algo}': unknown; (did you mean '\w+'\?|known: \w+, )"):
        PolicySettings.parse({"dap_algo": algo})
    assert len(LOSSES) == len(before) - 1
    for name in LOSSES:
        assert compute_losses(one_pair(), PolicySettings.parse({"dap_algo": name})).losses.item() == before[name]


def test_a_function_of_ones_own_is_a_loss_once_it_is_registered(monkeypatch):
    def hinge_at_zero(given, settings):
        margins = given.find_margins()
        return PairLosses(torch.relu(-margins), margins.detach())

    monkeypatch.setitem(LOSSES, "hinge", Loss(hinge_at_zero))
    computed = compute_losses(one_pair(), PolicySettings.parse({"dap_algo": "Hinge"}))
    assert computed.losses.tolist() == [0.0]
    assert computed.reward_margins.tolist() == pytest.approx([torch.tensor(2.0).log().item()])
    with pytest.raises(SettingsError, match="dap_algo='hinge' ignores it"):
        PolicySettings.parse({"dap_algo": "hinge", "beta": 0.7})


def test_settings_are_validated_without_torch():
    program = (
        "import sys; from oatflow.components.policy.settings import PolicySettings; "
        "PolicySettings.parse({'dap_algo': 'simpo', 'beta': 2.0}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
