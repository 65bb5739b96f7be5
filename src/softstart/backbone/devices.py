"""Where a model computes."""

from __future__ import annotations

import os

import torch

from softstart.errors import SoftstartError

_SHARDED = {"FullyShardedDataParallel", "FSDPModule"}


def prefer_device(device: str | None) -> torch.device:
    """The device asked for, or the GPU where there is one; a SoftstartError if it cannot be used."""
    if device is not None:
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as problem:
            raise SoftstartError(
                f"device '{device}' cannot be used ({str(problem).splitlines()[0]})", mend="Try --device cpu."
            ) from problem
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # A launcher of several processes numbers those of this machine.
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def refuse_sharded(model: torch.nn.Module) -> None:
    """Refuse a model that is in pieces on several processes.

    Raises:
        SoftstartError: FSDP has sharded it.
    """
    if any(_SHARDED & {kind.__name__ for kind in type(module).__mro__} for module in model.modules()):
        raise SoftstartError(
            "the model is sharded by FSDP, whose hooks have no second derivative",
            mend="Use device_map for a model larger than one GPU.",
        )
