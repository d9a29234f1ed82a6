"""What makes training fast on a device, and where each of it is chosen.

Here: cuDNN's choice of algorithms, pinned memory, data workers. Elsewhere:

- TF32 products: SpeechBrain enables them at import.
- Mixed precision: ``precision`` in the YAML file.
- Fused AdamW: ``opt_class`` in the YAML file; the same pass over the parameters clips
  and skips, see :func:`eat.training.optim.step_unless`.
- Attention kernels: :class:`eat.model.transformer.Attention`.
- Channels-last convolutions: :class:`eat.model.decoder.CNNDecoder`.
- torch.compile: ``--compile``; with ``--compile_mode reduce-overhead``, CUDA graphs.
"""

from __future__ import annotations

from typing import Any

import torch

from eat.utils.signals import ignore_signals


def set_backends(device: str | torch.device) -> None:
    """Let cuDNN time its algorithms and keep the fastest one, which SpeechBrain avoids.

    All batches have the same shape here, so it happens once.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.benchmark = True


def loader_options(
    device: str | torch.device, num_workers: int, training: bool
) -> dict[str, Any]:
    """Return the arguments of a data loader that depend on device and workers.

    Parameters
    ----------
    device
        Where the batches go. For a GPU they are in pinned memory, from which they are
        copied while it computes.
    num_workers
        Number of data workers.
    training
        Whether it is the loader of training clips. Its workers stay alive between
        epochs; those of a validation, which is rare, would occupy memory meanwhile.
    """
    options = {
        "num_workers": num_workers,
        "worker_init_fn": ignore_signals,
        "pin_memory": torch.device(device).type == "cuda",
    }
    if num_workers and training:
        options["persistent_workers"] = True
    return options
