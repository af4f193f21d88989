"""GPUs that are imitated, for tests of what only fails where there are some, such as a sum of tensors of two devices.

Their tensors say that they are on `cuda:0` or another one and are computed on the CPU. Every operation is checked as CUDA
would do it: tensors and generators have to be on one device, and NumPy cannot have them. Where PyTorch was built for CUDA,
the operation needs a kernel for it as well. Autocast casts what CUDA's autocast casts, which is not what a CPU's does.

What a GPU computes differently, by the order of its sums or in its own kernels, is not imitated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self
from unittest import mock

import torch
import torch._dynamo  # refuses to be imported while functions of PyTorch are replaced
from torch import (
    Generator,  # another one is `torch.Generator` meanwhile
    serialization,
)
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
CPU = torch.device("cpu")
CROSSING = {aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default}  # take tensors of any device
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
# What autocast computes in half precision, what in float32 unless a type is asked for, and what in its widest input's type.
# It computes all else that it knows in float32: https://docs.pytorch.org/docs/stable/amp.html
HALVES, SUMS, WIDEST = (
    names.split()
    for names in (
        "_convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d.input conv_transpose3d.input "
        "convolution prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul "
        "linalg_multi_dot scaled_dot_product_attention",
        "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm "
        "linalg_matrix_norm.str_ord sum sum.dim_IntList",
        "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add",
    )
)


class DeviceError(RuntimeError):
    """CUDA would refuse this operation."""


class OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU.

    To the C++ part of PyTorch it is one of the CPU, since gradients of CUDA's need its driver.
    """

    held: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, held: torch.Tensor, place: torch.device) -> OnGPU:
        with _disable_current_modes(), torch.inference_mode(False):
            made: OnGPU = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=CPU,
                _extra_dispatch_keys=AUTOCAST,
            )
        made.held, made.place = held, place
        return made

    device = property(lambda self: self.place)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGPU({self.held})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Raise, as a tensor of a GPU does."""
        raise DeviceError(f"can't convert {self.place} device type tensor to numpy: use Tensor.cpu()")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        """Copy to the CPU, which PyTorch does by itself."""
        return self.held.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Let `torch.save` write the numbers of a tensor of a GPU."""
        _written.add(self.held.untyped_storage().data_ptr())
        return self.held.__reduce_ex__(protocol)

    def data_ptr(self) -> int:
        """Where the numbers are."""
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """What holds the numbers."""
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class OnItsDevice(Generator):
    """A generator that says where it is."""

    of: ClassVar[
        dict[int, tuple[torch.device, Any]]
    ] = {}  # kept, as PyTorch passes on another object for the same generator

    def __new__(cls, device: Any = "cpu") -> Self:
        made = super().__new__(cls, "cpu")
        cls.of[made._cdata] = (_whole(device), made)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    device = property(lambda self: _place(self))  # type: ignore[assignment]


_written: set[int] = set()  # where storages are that `torch.save` is to mark as those of a GPU


def _mark(storage: torch.UntypedStorage) -> str | None:
    if storage.data_ptr() not in _written:
        return None
    _written.remove(storage.data_ptr())  # another storage may lie there later
    return "cuda:0"


def _refuse(storage: torch.UntypedStorage, location: str) -> None:
    """Raise, as `torch.load` does on a machine without a GPU if it is not told where to put what was on one."""
    if location.startswith("cuda"):
        raise DeviceError("Attempting to deserialize object on a CUDA device: give map_location")


class _Mode(TorchDispatchMode):
    """Makes what is asked for on the GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Asked(TorchFunctionMode):
    """Notes the device that Python asks for, or that of its inputs: C++ asks for what it takes for the device of these."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, given = _asked(), kwargs or {}
        inputs = [x.place for x in [*_leaves(args), *_leaves(given)] if isinstance(x, OnGPU)]
        _moving.asked = given.get("device") is not None, (inputs or [None])[0]
        try:
            return func(*args, **given)
        finally:
            _moving.asked = before


def _asked() -> tuple[bool, torch.device | None]:
    found: tuple[bool, torch.device | None] = getattr(_moving, "asked", (False, None))
    return found


_current = [0]  # index of the GPU that `cuda` is


@contextmanager
def imitated_gpu(count: int = 1) -> Iterator[None]:
    """Within this context there are so many GPUs, also for threads that are started in it."""
    _current[0] = 0
    answers: Mapping[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: _current[0],
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda **_: True,
        "_lazy_init": lambda: None,
        "manual_seed_all": lambda seed: None,
        "get_device_name": lambda *_: "imitated",
        "get_device_capability": lambda *_: (9, 0),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda *_: None,
        "set_device": lambda device: _current.__setitem__(0, _whole(device).index),
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        "current_stream": lambda *_: mock.MagicMock(),
        "Stream": lambda *_: mock.MagicMock(),
        "stream": lambda _: mock.MagicMock(),
    }
    start, alike, tensor = threading.Thread._bootstrap_inner, torch._has_compatible_shallow_copy_type, torch.tensor  # type: ignore[attr-defined]

    def started(thread: threading.Thread) -> None:
        with _Asked(), _Mode():  # modes are a thread's own
            start(thread)

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        on_cpu = tensor(*args, **kwargs)
        return on_cpu if device is None else _moved(on_cpu, device)

    library = _autocast()
    _device_constructors()  # remembers `torch.tensor`, which is another one within
    with ExitStack() as stack:
        stack.callback(library._destroy)
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stream = mock.MagicMock(is_capturing=lambda: False)
        for owner, name, replacement in (
            (torch.accelerator, "current_stream", lambda *_: stream),
            (torch.accelerator, "current_device_index", lambda: _current[0]),
            (torch.accelerator, "set_device_index", lambda _: None),
            (torch, "Generator", OnItsDevice),
            (torch, "tensor", made),
            # Parameters that move to the GPU are made anew, instead of given the numbers of another type of tensor.
            (torch, "_has_compatible_shallow_copy_type", lambda a, b: not _any_on_gpu(a, b) and alike(a, b)),
            (torch.Tensor, "to", _moved),
            (torch.Tensor, "cuda", lambda self, device="cuda", **_: _moved(self, device)),
            (torch.Tensor, "cpu", lambda self, **_: _moved(self, "cpu")),
            (torch.Tensor, "pin_memory", lambda self, *_: self),
            (threading.Thread, "_bootstrap_inner", started),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        stack.enter_context(mock.patch.object(serialization, "_package_registry", [*serialization._package_registry]))
        serialization.register_package(0, _mark, _refuse)
        stack.enter_context(_Asked())
        stack.enter_context(_Mode())
        yield


_moving = threading.local()


def _moved(self: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> torch.Tensor:
    """`Tensor.to`. What it leaves to C++ would compare devices as C++ knows them."""
    other = args[0] if args else kwargs.get("other")
    if isinstance(other, torch.Tensor):
        device, dtype, layout = other.device, other.dtype, None
    else:
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    device, dtype = self.device if device is None else _whole(device), self.dtype if dtype is None else dtype
    fits = layout is None or self.is_contiguous(memory_format=layout)
    if (device, dtype) == (self.device, self.dtype) and fits and not copy:
        return self
    more = {} if layout is None else {"memory_format": layout}
    _moving.now = True
    try:
        moved: torch.Tensor = aten._to_copy.default(self, dtype=dtype, device=device, **more)
        return moved
    finally:
        _moving.now = False


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check an operation, compute it on the CPU, and put its results on the device of its inputs or the one asked for."""
    inputs = [*_leaves(args), *_leaves(kwargs)]
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    gpu, asked = next((x.place for x in tensors if isinstance(x, OnGPU)), None), kwargs.pop("device", None)
    if asked is not None and _whole(asked) == CPU and not getattr(_moving, "now", False):
        # C++ may ask, which knows the CPU alone.
        by_name, of_inputs = _asked()
        if gpu is not None:
            asked = gpu
        elif not tensors and not by_name and (of_inputs or torch._C._current_graph_task_id() != -1):
            asked = of_inputs or _whole("cuda")
    device = _whole(asked) if asked is not None else gpu or CPU
    if func not in CROSSING:
        _check(func, args, tensors, device)
    for generator in (x for x in inputs if isinstance(x, Generator)):
        if _place(generator) != device:
            raise DeviceError(f"{func}: a generator on {device} expected, not on {_place(generator)}")
    if asked is not None:
        kwargs["device"] = CPU if device.type == "cuda" else device
    if device.type == "cuda":
        kwargs.pop("pin_memory", None)
    outer = {id(x.held): x for x in tensors if isinstance(x, OnGPU)} | {
        id(x): x for x in tensors if not isinstance(x, OnGPU)
    }
    with _disable_current_modes():
        result = func(*_mapped(_held, args), **_mapped(_held, kwargs))

    def placed(x: Any) -> Any:
        known = outer.get(id(x))
        if known is not None:
            assert known.shape == x.shape, f"{func} changed a shape in place, which is not imitated"
            return known
        return OnGPU(x, device) if isinstance(x, torch.Tensor) and device.type == "cuda" else x

    return _mapped(placed, result)


def _check(func: Any, args: Any, tensors: list[torch.Tensor], device: torch.device) -> None:
    if not _any_on_gpu(*tensors):
        if device.type == "cuda" and tensors:
            raise DeviceError(f"{func}: makes a tensor on a GPU from one on the CPU")
        return
    others = [x for x in tensors if not isinstance(x, OnGPU)]
    if len({x.place for x in tensors if isinstance(x, OnGPU)}) > 1:
        raise DeviceError(f"{func}: all tensors expected on one device, {[str(x.device) for x in tensors]} are several")
    if func in INDEXING:
        if not isinstance(args[0], OnGPU):
            raise DeviceError(f"{func}: indices should be on the CPU, as the indexed tensor is")
        return
    # A single number may stay on the CPU where the operation works element by element.
    by_element = torch.Tag.pointwise in func.tags or any(
        part in str(func) for part in ("masked_fill", "where", "fill_", "foreach", "_fused_adam")
    )
    if any(x.dim() or not by_element for x in others):
        raise DeviceError(
            f"{func}: all tensors expected on one device, {[tuple(x.shape) for x in others]} are on the CPU"
        )
    if torch.backends.cuda.is_built() and not torch._C._dispatch_has_computed_kernel_for_dispatch_key(
        func.name(), "CUDA"
    ):
        raise DeviceError(f"{func} has no kernel for CUDA")


def _autocast() -> torch.library.Library:
    """Replace the kernels of CUDA's autocast, which ask C++ for the device, by the same ones that ask here."""
    library = torch.library.Library("aten", "IMPL")
    for registered in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
        name = registered.removeprefix("aten::")
        if "::" in name or "cudnn" in name or "fused" in name or name == "binary_cross_entropy":
            continue
        base, _, overload = name.partition(".")
        operation = getattr(getattr(aten, base), overload or "default", None)
        if operation is not None:
            library.impl(name, _casting(operation, name), "AutocastCUDA")
    return library


def _casting(operation: Any, name: str) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        kinds = {x.dtype for x in [*_leaves(args), *_leaves(kwargs)] if _is_cast(x)}
        half = torch.get_autocast_dtype("cuda")
        if name in HALVES or (name in WIDEST and torch.float32 not in kinds):
            to: torch.dtype | None = half
        elif name in SUMS and any(isinstance(x, torch.dtype) for x in [*args, *kwargs.values()]):
            to = None
        else:
            to = torch.float32

        def casted(x: Any) -> Any:
            return _moved(x, to) if to is not None and _is_cast(x) else x

        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operation(*_mapped(casted, args), **_mapped(casted, kwargs))

    return cast


def _is_cast(x: Any) -> bool:
    return isinstance(x, OnGPU) and x.dtype.is_floating_point and x.dtype != torch.float64


def _held(x: Any) -> Any:
    return x.held if isinstance(x, OnGPU) else x


def _any_on_gpu(*tensors: torch.Tensor) -> bool:
    return any(isinstance(x, OnGPU) for x in tensors)


def _place(generator: Generator) -> torch.device:
    return OnItsDevice.of.get(generator._cdata, (CPU,))[0]


def _whole(device: Any) -> torch.device:
    """A device with its index: that of `cuda` is the current GPU's."""
    if isinstance(device, int):
        return torch.device("cuda", device)
    known = torch.device(device)
    return torch.device("cuda", _current[0]) if known.type == "cuda" and known.index is None else known


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (list, tuple, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _mapped(function, part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_mapped(function, part) for part in tree]
        return parts if isinstance(tree, list) else tuple(parts)
    return function(tree)
