"""DeepSpeed: adds up losses, updates weights, and exchanges the whole state. The only module that imports deepspeed.

Weights and optimizer are float32; forward and backward passes may run in bfloat16 under autocast, whose updates do
not vanish in rounding as those of pure bfloat16 weights do. The state is exchanged whole and by parameter name, so
that it fits every ZeRO stage and every number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .checkpoint import MOMENTS
from .settings import PolicySettings

if not torch.cuda.is_available():
    # Read when deepspeed is imported, which else goes looking for accelerators.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.constants import default_pg_timeout
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state, safe_set_full_optimizer_state

State = dict[str, dict[str, Tensor]]


def init_workers(waits_for_store: float = 0.0) -> tuple[int, int]:
    """Connect to the other workers; returns this one's rank and how many there are.

    `waits_for_store`: for how many seconds a worker may wait for the store while the others wait for that worker.
    """
    # Gloo carries everything; DeepSpeed would first compile a transport of its own, for a minute, on every machine.
    deepspeed.ops.__compatible_ops__ = {}
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    timeout = default_pg_timeout + timedelta(seconds=waits_for_store)
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timeout)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class Learner:
    """A model with its optimizer, spread over the workers. Every method is called by all of them alike."""

    def __init__(self, model: torch.nn.Module, settings: PolicySettings, precision: str):
        if settings.gradient_checkpointing:
            _recompute_activations(model)
        betas = (settings.adam_beta_1, settings.adam_beta_2)
        self._adam = torch.optim.AdamW(
            _group_parameters(model, settings.l2), lr=settings.learning_rate, betas=betas, fused=True
        )
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._stage: int = settings.zero_stage
        self._norm = 0.0
        if not self._stage:
            # Without ZeRO, DeepSpeed clips too, but keeps the norm to itself.
            self._adam.register_step_pre_hook(lambda *_: self._clip_gradients(settings.max_norm))
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model, optimizer=self._adam, config=_configure_deepspeed(settings, precision)
        )
        if not self._stage and torch.distributed.get_world_size() == 1:
            # Alone, there is nobody to add gradients up with: DeepSpeed would copy them all into one buffer for it.
            self._engine.enable_backward_allreduce = False
        self.model, self.device = self._engine, self._engine.device
        self._keeps = torch.distributed.get_rank() == 0
        self._begin_state()

    def add_loss(self, loss: Tensor) -> None:
        """Add a loss's gradient to that of the next update, which follows the *sum* of all workers' losses."""
        # DeepSpeed averages over the workers.
        self._engine.backward(loss * torch.distributed.get_world_size())

    def update_weights(self, rate: float) -> float:
        """Clip the gradient and move the weights; returns the gradient's norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm()) if self._stage else self._norm

    def gather_trained(self) -> dict[str, Tensor]:
        """Return the whole float32 weights that are trained, by name; worker 0 alone gets them."""
        return self._gather_whole(safe_get_full_fp32_param if self._stage == 3 else lambda parameter: parameter)

    def gather_weights(self) -> dict[str, Tensor]:
        """Return the whole float32 weights by name; worker 0 alone gets them."""
        whole = self.gather_trained() if self._stage == 3 else {}
        module = self._engine.module
        tied = dict(getattr(module, "all_tied_weights_keys", None) or {})
        everything = module.state_dict() if self._keeps else {}
        return {name: whole.get(tied.get(name, name), tensor) for name, tensor in everything.items()}

    def gather_state(self) -> State:
        """Return Adam's moments, whole, by moment and parameter; worker 0 alone gets them."""
        return {moment: self._gather_whole(partial(self._read_moment, moment=moment)) for moment in MOMENTS}

    def load_state(self, load: Callable[[str], Mapping[str, Tensor]], count: int) -> None:
        """Go on from moments that an earlier round left, after `count` steps; `load` brings one of them at a time."""
        for flat in self._flat_tensors():
            self._adam.state[flat]["step"].fill_(count)
        for moment in MOMENTS:
            tensors = load(moment)
            for name, parameter in self._named.items():
                tensor = tensors[name].to(self.device)
                if self._stage:
                    safe_set_full_optimizer_state(parameter, tensor, moment)
                else:
                    self._adam.state[parameter][moment].copy_(tensor)
            del tensor, tensors

    def _begin_state(self) -> None:
        """Give Adam its zeros now: it would make them in its first step, which is too late to load others."""
        for flat in self._flat_tensors():
            zeros = {moment: torch.zeros_like(flat, requires_grad=False) for moment in MOMENTS}
            self._adam.state[flat] = {"step": torch.zeros((), device=flat.device), **zeros}
        if self._stage in (1, 2):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _flat_tensors(self) -> list[Tensor]:
        """Return the tensors that Adam works on: with ZeRO, this worker's share of all parameters in a row."""
        if self._stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        return [tensor for group in self._adam.param_groups for tensor in group["params"]]

    def _read_moment(self, parameter: Any, moment: str) -> Tensor:
        return safe_get_full_optimizer_state(parameter, moment) if self._stage else self._adam.state[parameter][moment]

    def _gather_whole(self, whole: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        gathered = {}
        for name, parameter in self._named.items():
            tensor = whole(parameter)
            if self._keeps:
                gathered[name] = tensor.detach().cpu()
        return gathered

    def _clip_gradients(self, max_norm: float) -> None:
        self._norm = float(torch.nn.utils.clip_grad_norm_(self._named.values(), max_norm))


def _recompute_activations(model: Any) -> None:
    """Keep no activations for the backward pass. transformers does so in training mode only, where dropout must go."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()


def _group_parameters(model: torch.nn.Module, l2: float) -> list[dict[str, Any]]:
    """Weight decay pulls on matrices only, never on biases and norms."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": l2},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _configure_deepspeed(settings: PolicySettings, precision: str) -> dict[str, Any]:
    return {
        # Whoever calls `update_weights` says where a step ends; the steps of a round are not all of one size.
        "managed_gradient_accumulation": False,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_norm if settings.zero_stage else 0.0,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,
            **({"offload_optimizer": {"device": "cpu"}} if settings.adam_offload else {}),
        },
        # torch's own AdamW moves the weights, wherever its state lies.
        "zero_force_ds_cpu_optimizer": False,
        # No module is named whose gradients may travel in bfloat16: workers add them up in float32.
        "torch_autocast": {
            "enabled": precision == "bfloat16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "steps_per_print": 10**9,
    }
