"""The C interface of the CUDA kernels (kernels/c_api/retention.h), through ctypes. Knows nothing of PyTorch.

libstatehouse_retention.so lies beside this file if pip found a CUDA compiler; STATEHOUSE_RETENTION_LIBRARY names another.
"""
import ctypes
import functools
import os
import pathlib

NAME = "libstatehouse_retention.so"
VARIABLE = "STATEHOUSE_RETENTION_LIBRARY"
UNIMPLEMENTED = 12
INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8
DTYPES = {"bfloat16": 0, "float16": 1, "float32": 2}
MESSAGE_BYTES = 1024


def _struct(name, *fields):
    return type(name, (ctypes.Structure,), {"_fields_": [("size", ctypes.c_size_t), *fields]})


def _pointers(*names):
    return [(name, ctypes.c_void_p) for name in names]


Shape = _struct("Shape", *[(name, ctypes.c_int32) for name in (
    "device", "dtype", "heads_q", "heads_kv", "head_dim", "degree")], ("scale", ctypes.c_float), ("chunk", ctypes.c_int32))
ForwardArgs = _struct("ForwardArgs", *_pointers(
    "Q", "K", "V", "log_G", "y", "denominator", "initial_state", "initial_normalizer", "final_state", "final_normalizer",
    "workspace", "saved"))
BackwardArgs = _struct("BackwardArgs", *_pointers(
    "Q", "K", "V", "log_G", "y", "denominator", "dY", "initial_state", "initial_normalizer", "dfinal_state",
    "dfinal_normalizer", "dQ", "dK", "dV", "dlog_G", "dinitial_state", "dinitial_normalizer", "workspace", "saved"))


class Message(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("size", ctypes.c_size_t)]


def make(struct, **fields):
    return struct(size=ctypes.sizeof(struct), **fields)


def path():
    """Where the library is expected."""
    return pathlib.Path(os.environ.get(VARIABLE) or pathlib.Path(__file__).with_name(NAME))


@functools.lru_cache(maxsize=1)
def load():
    """The library. Raises NotImplementedError that says why there is none."""
    where = path()
    if not where.exists():
        raise NotImplementedError(
            f"this installation of power_retention has no CUDA kernels ({where} is missing): reinstall it where nvcc is on "
            "the PATH, in .cuda/bin of the checkout, in /usr/local/cuda/bin or in CUDACXX (`pip install -v` says why not), or "
            f"let {VARIABLE} name the library; power_retention.reference runs on any device")
    try:
        library = ctypes.CDLL(str(where))
    except OSError as error:
        raise NotImplementedError(f"the CUDA kernels of power_retention cannot be loaded: {error}") from error
    return Library(library)


class Library:
    """Calls by name; a status that is not OK becomes an exception with the library's own words."""

    def __init__(self, library):
        pointer, size, i32, i64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int64

        def function(name, result, *arguments):
            out = getattr(library, "statehouse_retention_" + name)
            out.restype, out.argtypes = result, arguments
            return out

        shape = ctypes.POINTER(Shape)
        self.state_rows = function("state_rows", i64, i32)
        self.state_row = function("state_row", i64, i32, i32, i32)
        self._check_backward = function("check_backward", ctypes.c_int, shape, Message)
        self._backward_chunk = function("backward_chunk", i64, shape, i64)
        self._plan_make = function("plan_make", ctypes.c_int, shape, ctypes.POINTER(i64), i64, ctypes.POINTER(pointer),
                                   Message)
        self.plan_free = function("plan_free", None, pointer)
        self.forward_workspace = function("forward_workspace", size, pointer)
        self.backward_workspace = function("backward_workspace", size, pointer, ctypes.c_int)
        self.saved_bytes = function("saved_bytes", size, pointer)
        self._forward = function("forward", ctypes.c_int, pointer, ctypes.POINTER(ForwardArgs), pointer, Message)
        self._backward = function("backward", ctypes.c_int, pointer, ctypes.POINTER(BackwardArgs), pointer, Message)

    def check_backward(self, shape):
        _call(self._check_backward, ctypes.byref(shape))

    def backward_chunk(self, shape, longest):
        return self._backward_chunk(ctypes.byref(shape), longest)

    def plan_make(self, shape, cu_seqlens):
        lengths = (ctypes.c_int64 * len(cu_seqlens))(*cu_seqlens)
        plan = ctypes.c_void_p()
        _call(self._plan_make, ctypes.byref(shape), lengths, len(cu_seqlens) - 1, ctypes.byref(plan))
        return plan

    def forward(self, plan, args, stream):
        _call(self._forward, plan, ctypes.byref(args), stream)

    def backward(self, plan, args, stream):
        _call(self._backward, plan, ctypes.byref(args), stream)


def _call(function, *arguments):
    text = ctypes.create_string_buffer(MESSAGE_BYTES)
    code = function(*arguments, Message(ctypes.cast(text, ctypes.c_char_p), MESSAGE_BYTES))
    if code == 0:
        return
    message = text.value.decode(errors="replace")
    if code == UNIMPLEMENTED:
        raise NotImplementedError(message)
    if code == INVALID_ARGUMENT:
        raise ValueError(message)
    if code == RESOURCE_EXHAUSTED:
        raise MemoryError(message)
    raise RuntimeError(message)
