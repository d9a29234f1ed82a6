"""Where the time of a training step goes: by kind of operator, and by phase."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

Place = tuple[str, object, str]  # name of a phase, an object, its method

PREFIX = "phase: "
UPDATES = ("optimizer", "EMA")
KINDS = {
    "products": "mm addmm bmm baddbmm linear mkldnn_linear _mkl_linear",
    "convolutions": "mkldnn_convolution convolution_backward cudnn_convolution "
    "_slow_conv2d_forward thnn_conv2d",
    "fused attention": "_scaled_dot_product_flash_attention "
    "_scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_flash_attention_backward "
    "_scaled_dot_product_flash_attention_for_cpu_backward "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_cudnn_attention_backward "
    "_efficient_attention_forward _efficient_attention_backward "
    "_flash_attention_forward _flash_attention_backward",
    "casts and copies": "copy_ _to_copy clone cat stack fill_ zero_ constant_pad_nd "
    "index_put_ repeat_interleave",
    "elementwise": "add add_ mul mul_ div div_ sub sub_ neg pow square sqrt exp log "
    "log_ where masked_fill masked_fill_ clamp clamp_ clamp_min lerp_ sum mean "
    "mse_loss mse_loss_backward",
    "GELU": "gelu gelu_backward",
    "norms": "native_layer_norm native_layer_norm_backward native_batch_norm "
    "linalg_vector_norm",
    "softmax": "_softmax _softmax_backward_data",
    "gather and scatter": "gather gather_backward scatter scatter_ scatter_add "
    "scatter_add_ index index_select sort argsort",
    "random": "normal_ uniform_ random_ randn rand randint bernoulli_",
}
KIND_OF = {f"aten::{name}": kind for kind in KINDS for name in KINDS[kind].split()}


@contextmanager
def phases(places: Sequence[Place]) -> Iterator[None]:
    """Record methods of objects under the names of phases."""
    with ExitStack() as stack:
        for name, owner, method in places:
            call = recorded(PREFIX + name, getattr(owner, method))
            stack.enter_context(patch.object(owner, method, call))
        yield


def recorded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, recorded under a name in profiles."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return call(*args, **kwargs)

    return run


def profile_step(
    run: Callable[[], object], places: Sequence[Place], device: torch.device
) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a call by operators and by phases.

    They are those of the kernels on a GPU, otherwise those of the CPU.
    """
    activities, on_gpu = [ProfilerActivity.CPU], device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with phases(places), profile(activities=activities) as profiler:
        run()
        if on_gpu:
            torch.cuda.synchronize(device)
    kinds: dict[str, float] = defaultdict(float)
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type != DeviceType.CPU:
            continue
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        phase = phase_of(event)
        updates = phase in UPDATES
        kind = "optimizer and EMA" if updates else KIND_OF.get(event.name, "rest")
        kinds[kind] += own / 1000
        spent[phase] += own / 1000
    return {"operators": dict(kinds), "phases": dict(spent)}


def phase_of(event: FunctionEvent | None) -> str:
    """Return the innermost phase around an event."""
    while event is not None:
        if event.name.startswith(PREFIX):
            return event.name.removeprefix(PREFIX)
        if event.name.startswith("autograd::engine"):  # on a GPU in another thread
            return "backward"
        event = event.cpu_parent
    return "rest"


def waits(run: Callable[[], object], device: torch.device) -> list[str]:
    """Return the lines of code at which a call waits for the GPU."""
    if device.type != "cuda":
        return []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = (f"{w.filename}:{w.lineno}" for w in found if "synchron" in str(w.message))
    return list(dict.fromkeys(places))
