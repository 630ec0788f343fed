"""Power retention on a GPU: autograd around the forward and backward kernels."""
import functools

import torch
from torch.autograd.function import once_differentiable

from . import library
from .state import RetentionState, to_canonical, to_padded

DTYPES = {getattr(torch, name): number for name, number in library.DTYPES.items()}
MAX_CHUNK = 65536  # rows; kernels/power_retention/cuda/retention.h


class Plan:
    """How a batch is cut into chunks: tables on the device, made once per shape."""

    def __init__(self, shape, cu_seqlens):
        self._library = library.load()
        self.pointer = self._library.plan_make(shape, cu_seqlens)

    def __del__(self):
        if getattr(self, "pointer", None):
            self._library.plan_free(self.pointer)


@functools.lru_cache(maxsize=128)
def _plan(device, dtype, heads_q, heads_kv, head_dim, degree, scale, chunk, b, t):
    shape = library.make(library.Shape, device=device, dtype=dtype, heads_q=heads_q, heads_kv=heads_kv, head_dim=head_dim,
                         degree=degree, scale=scale, chunk=chunk)
    return Plan(shape, [i * t for i in range(b + 1)])


class Call:
    """What the kernels are told besides tensors."""

    def __init__(self, Q, K, deg, scale, chunk_size):
        if Q.dtype not in DTYPES:
            raise NotImplementedError(f"power retention on the GPU: {Q.dtype}: there are bfloat16, float16 and float32; "
                                      "power_retention.reference computes with any")
        self.b, self.t, heads_q, head_dim = Q.shape
        index = torch.cuda.current_device() if Q.device.index is None else Q.device.index
        self._key = (index, DTYPES[Q.dtype], heads_q, K.shape[2], head_dim, deg, scale)
        if chunk_size is not None and min(chunk_size, self.t) > MAX_CHUNK:
            raise NotImplementedError(f"power retention on the GPU: chunk_size {chunk_size} of {self.t} rows: must be at most "
                                      f"{MAX_CHUNK}, or None")
        self._chunk = 0 if chunk_size is None else min(chunk_size, MAX_CHUNK)  # more than t is as good as t

    def shape(self, chunk=0):
        device, dtype, heads_q, heads_kv, head_dim, degree, scale = self._key
        return library.make(library.Shape, device=device, dtype=dtype, heads_q=heads_q, heads_kv=heads_kv,
                            head_dim=head_dim, degree=degree, scale=scale, chunk=chunk)

    def forward_plan(self):
        return _plan(*self._key, self._chunk, self.b, self.t)

    def backward_plan(self):
        chunk = self._chunk or library.load().backward_chunk(self.shape(), self.t)
        return _plan(*self._key, chunk, self.b, self.t)


def power_retention(Q, K, V, log_G, deg, scale, chunk_size, initial_state, return_final_state, keep_states=False):
    """As operators.power_retention, which has checked the arguments."""
    lib = library.load()
    call = Call(Q, K, deg, scale, chunk_size)
    states = () if initial_state is None else initial_state
    if deg != 2 and (states or return_final_state):
        raise NotImplementedError(f"power retention on the GPU: deg {deg} with an initial or a final state")
    if Q.shape[-1] % 8 != 0:
        raise NotImplementedError(f"power retention on the GPU: head size {Q.shape[-1]}: must be a multiple of 8")
    inputs = [x for x in (Q, K, V, log_G, *states) if x is not None]
    has_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if has_gradients:
        lib.check_backward(call.shape())  # now, and not when a loss has been computed
    if Q.shape[0] * Q.shape[1] == 0:
        return _without_rows(Q, K, deg, initial_state, return_final_state)
    S = z = None
    if initial_state is not None:
        S, z = to_padded(RetentionState(*(x.float() for x in initial_state)))
    y, *final = Retention.apply(call, bool(return_final_state), keep_states and has_gradients, Q, K, V, None if log_G is None else log_G.float(), S, z)
    return (y, to_canonical(RetentionState(*final))) if return_final_state else y


def _without_rows(Q, K, deg, initial_state, return_final_state):
    from .reference import zero_state
    if not return_final_state:
        return torch.zeros_like(Q)
    if initial_state is None:
        initial_state = zero_state(Q.shape[0], K.shape[2], Q.shape[3], deg, torch.float32, Q.device)
    return torch.zeros_like(Q), RetentionState(*(x.float() for x in initial_state))


class Retention(torch.autograd.Function):
    """States in the padded layout. Returns (y,) or (y, S, z)."""

    @staticmethod
    def forward(ctx, call, returns_state, keeps_states, Q, K, V, log_G, S, z):
        lib, plan = library.load(), call.backward_plan() if keeps_states else call.forward_plan()
        Q, K, V, log_G, S, z = (_dense(x) for x in (Q, K, V, log_G, S, z))
        y = torch.empty_like(Q)
        denominator = _new(Q, *Q.shape[:3])
        final_S = final_z = None
        if returns_state:
            rows = lib.state_rows(Q.shape[3])
            final_S = _new(Q, Q.shape[0], K.shape[2], rows, Q.shape[3])
            final_z = _new(Q, Q.shape[0], K.shape[2], rows)
        workspace = _bytes(Q, lib.forward_workspace(plan.pointer))
        saved = _bytes(Q, lib.saved_bytes(plan.pointer)) if keeps_states else None
        lib.forward(plan.pointer, library.make(
            library.ForwardArgs, Q=_at(Q), K=_at(K), V=_at(V), log_G=_at(log_G), y=_at(y), denominator=_at(denominator),
            initial_state=_at(S), initial_normalizer=_at(z), final_state=_at(final_S), final_normalizer=_at(final_z),
            workspace=_at(workspace), saved=_at(saved)), _stream(Q))
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(Q, K, V, log_G, y, denominator, S, z, saved)
        return (y, final_S, final_z) if returns_state else (y,)

    @staticmethod
    @once_differentiable
    def backward(ctx, dY, dfinal_S=None, dfinal_z=None):
        Q, K, V, log_G, y, denominator, S, z, saved = ctx.saved_tensors
        lib, plan = library.load(), ctx.call.backward_plan()
        dY = torch.zeros_like(y) if dY is None else _dense(dY)
        if (dfinal_S is None) != (dfinal_z is None):
            rows = lib.state_rows(Q.shape[3])
            if dfinal_S is None:
                dfinal_S = torch.zeros((*dfinal_z.shape, Q.shape[3]), dtype=torch.float32, device=Q.device)
            else:
                dfinal_z = torch.zeros((*dfinal_S.shape[:2], rows), dtype=torch.float32, device=Q.device)
        dfinal_S, dfinal_z = _dense(dfinal_S), _dense(dfinal_z)
        dQ, dK, dV = torch.empty_like(Q), torch.empty_like(K), torch.empty_like(V)
        dlog_G, dS, dz = (None if x is None else torch.empty_like(x) for x in (log_G, S, z))
        workspace = _bytes(Q, lib.backward_workspace(plan.pointer, int(S is not None or dfinal_S is not None)))
        lib.backward(plan.pointer, library.make(
            library.BackwardArgs, Q=_at(Q), K=_at(K), V=_at(V), log_G=_at(log_G), y=_at(y), denominator=_at(denominator),
            dY=_at(dY), initial_state=_at(S), initial_normalizer=_at(z), dfinal_state=_at(dfinal_S),
            dfinal_normalizer=_at(dfinal_z), dQ=_at(dQ), dK=_at(dK), dV=_at(dV), dlog_G=_at(dlog_G), dinitial_state=_at(dS),
            dinitial_normalizer=_at(dz), workspace=_at(workspace), saved=_at(saved)), _stream(Q))
        return None, None, None, dQ, dK, dV, dlog_G, dS, dz


def _dense(tensor):
    """Contiguous, and aligned as the kernels want it."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _new(like, *shape):
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _bytes(like, size):
    return torch.empty(max(size, 16), dtype=torch.uint8, device=like.device)


def _at(tensor):
    return None if tensor is None else tensor.data_ptr()


def _stream(tensor):
    return torch.cuda.current_stream(tensor.device).cuda_stream
