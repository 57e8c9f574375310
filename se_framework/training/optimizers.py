"""A step of an optimiser, without what torch does around a kernel that a small network does not outweigh."""

from __future__ import annotations

import torch
from torch.optim import optimizer as hooks

_CALLED_WITHOUT = ("amsgrad", "maximize", "capturable", "differentiable")
_ONE = torch.tensor(1.0)  # adding a number makes a tensor of it for each parameter


def make_step(optimizer: torch.optim.Optimizer) -> None:
    """Do what ``optimizer.step()`` does, bit for bit: fused Adam on a CPU by calling the kernel that it ends in.

    torch prepares that call for 40 us; for a small network the kernel takes 20. Subclasses, hooks, several groups and
    other options go torch's way, and so does the first step, which makes the moments.

    Args:
        optimizer: whose parameters have their gradients.
    """
    group = optimizer.param_groups[0]
    moved = [p for p in group["params"] if p.grad is not None] if _is_plain(optimizer) else []
    gradients = [p.grad for p in moved]
    moments = [optimizer.state[p] for p in moved]
    if not moments or not all(moments) or len({(t.dtype, t.device, t.layout) for t in (*moved, *gradients)}) > 1:
        optimizer.step()
        return
    kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_
    with torch.no_grad():
        steps = [moment["step"] for moment in moments]
        torch._foreach_add_(steps, _ONE, alpha=1.0)
        kernel(
            moved,
            gradients,
            [moment["exp_avg"] for moment in moments],
            [moment["exp_avg_sq"] for moment in moments],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def _is_plain(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step is one call of the kernel, and nobody listens to it."""
    group = optimizer.param_groups[0]
    return (
        type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)
        and len(optimizer.param_groups) == 1
        and bool(group["fused"])
        and group["params"][0].is_cpu
        and not any(group[option] for option in _CALLED_WITHOUT)
        and all(type(number) is float for number in (group["lr"], *group["betas"]))
        and "step" not in vars(optimizer)  # somebody has put another in its place
        and not (optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)
        and not (hooks._global_optimizer_pre_hooks or hooks._global_optimizer_post_hooks)
        and getattr(optimizer, "found_inf", None) is None
    )
