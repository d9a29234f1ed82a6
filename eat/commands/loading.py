"""The model of a command, and errors about its options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eat.errors import EATError, ExperimentError

if TYPE_CHECKING:
    from eat.inference.features import AudioEncoder


def load_model(path: str, device: str | None, **options: Any) -> AudioEncoder:
    """Load a checkpoint on a device, which must be there."""
    import torch

    from eat.inference.features import from_pretrained

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # which one depends on the device
        reason = str(error).strip().split("\n")[0]
        raise ExperimentError(f"--device {device}: {reason} (try cpu)") from None
    return from_pretrained(path, device=device, **options)


@contextmanager
def option_errors() -> Iterator[None]:
    """Turn the `ValueError` of an option into an `ExperimentError`."""
    try:
        yield
    except EATError:  # of a file, for example
        raise
    except ValueError as error:
        raise ExperimentError(f"--{error}") from None
