"""The CUDA operators through PyTorch, on a GPU: values and gradients against float64, random upstream gradients.

Skips without a GPU or without the library; STATEHOUSE_RETENTION_LIBRARY names one that was not installed with the package.
"""
import sys
import unittest
import warnings

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit(77) from None

from definition import random_inputs, relative_error, token_by_token
from power_retention import RetentionState, cuda_support, power_retention, reference

REASON = cuda_support()
# Relative errors that are accepted, set by hand: above the worst of a run on an H100, which the package's README.md names.
BOUND = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 2e-5}


def in_double(inputs, upstream, **options):
    """Outputs and gradients of the reference in float64 for the same numbers."""
    doubles = {name: x if x is None else x.detach().double().requires_grad_() for name, x in inputs.items()}
    return run(reference.power_retention, doubles, [x.double() for x in upstream], **options)[:2]


def run(function, inputs, upstream=None, **options):
    """Outputs, gradients by name, and the upstream gradients: random ones where none are given."""
    given = dict(inputs)
    S, z = given.pop("S", None), given.pop("z", None)
    state = None if S is None else RetentionState(S, z)
    Y, after = function(**given, initial_state=state, return_final_state=True, **options)
    outputs = [Y, *after]
    tensors = {name: x for name, x in inputs.items() if x is not None}
    if upstream is None:
        upstream = [torch.randn_like(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, list(tensors.values()), upstream)
    return outputs, dict(zip(tensors, gradients)), upstream


@unittest.skipIf(REASON, REASON)
class Cuda(unittest.TestCase):
    worst = {}

    @classmethod
    def tearDownClass(cls):
        for what, error in sorted(cls.worst.items()):
            print(f"{what:36} {error:.2e}", file=sys.stderr)

    def check(self, dtype, b, t, heads_q, heads_kv, d, gates="open", state=True, chunk_size=None):
        inputs = random_inputs(b, t, heads_q, heads_kv, d, gates, dtype, "cuda", state)
        inputs = {name: x if x is None else x.requires_grad_() for name, x in inputs.items()}
        got, got_grad, upstream = run(power_retention, inputs, chunk_size=chunk_size)
        want, want_grad = in_double(inputs, upstream)
        for name, x, y in zip(("Y", "S", "sum_of_keys"), got, want):
            self.note(dtype, name, x, y)
        # A gate's gradient is a sum of these products, each with its rounding, and a single one may come out near zero by
        # chance: it is judged by their root of squares. Of many gates' gradients chance leaves no such norm.
        products = sum((dx.double() * x).norm().item() for dx, x in zip(upstream, want))
        for name in got_grad:
            is_single = name == "log_G" and want_grad[name].numel() == 1
            self.note(dtype, "d" + name, got_grad[name], want_grad[name], products if is_single else 0.0)

    def note(self, dtype, name, got, want, least_scale=0.0):
        """The error relative to the norm of what is wanted; with a scale, to that if it is larger, and half as much of it."""
        error = relative_error(got, want) * want.norm().item() / max(want.norm().item(), least_scale)
        what = f"{str(dtype)[6:]} {name}"
        self.worst[what] = max(self.worst.get(what, 0.0), error)
        self.assertLess(error, BOUND[dtype] / (2 if least_scale > 0 else 1), what)

    def test_values_and_gradients(self):
        for dtype in BOUND:
            for case in (dict(b=2, t=300, heads_q=4, heads_kv=2, d=64, chunk_size=128),
                         dict(b=1, t=513, heads_q=6, heads_kv=1, d=128, chunk_size=256, gates="half"),
                         dict(b=3, t=65, heads_q=2, heads_kv=2, d=64, gates="none", state=False),
                         *[dict(b=1, t=1, heads_q=2, heads_kv=1, d=64)] * 8,  # one gate: chance decides how near zero
                         dict(b=2, t=1500, heads_q=2, heads_kv=1, d=64)):
                with self.subTest(dtype=dtype, **case):
                    self.check(dtype, **case)

    def test_only_the_state_is_learned(self):
        inputs = random_inputs(1, 200, 2, 1, 64, "open", torch.bfloat16, "cuda", True)
        S, z = inputs.pop("S").requires_grad_(), inputs.pop("z")
        Y = power_retention(**inputs, initial_state=RetentionState(S, z))
        dY = torch.randn_like(Y)
        dS, = torch.autograd.grad(Y, S, dY)
        doubles = {name: x.double() for name, x in inputs.items()}
        S64 = S.detach().double().requires_grad_()
        want = reference.power_retention(**doubles, initial_state=RetentionState(S64, z.double()))
        self.assertLess(relative_error(dS, torch.autograd.grad(want, S64, dY.double())[0]), BOUND[torch.bfloat16])

    def test_same_inputs_give_the_same_bits(self):
        inputs = random_inputs(2, 700, 4, 2, 64, "open", torch.bfloat16, "cuda", True)
        inputs = {name: x.requires_grad_() for name, x in inputs.items()}
        first, first_grad, upstream = run(power_retention, inputs, chunk_size=256)
        second, second_grad, _ = run(power_retention, inputs, upstream, chunk_size=256)
        for x, y in zip(first, second):
            self.assertTrue(torch.equal(x, y))
        for name in first_grad:
            self.assertTrue(torch.equal(first_grad[name], second_grad[name]), name)

    def test_kept_states_give_the_same_bits(self):
        for dtype in BOUND:
            for chunk_size in (64, None):
                inputs = {name: x.requires_grad_() for name, x in random_inputs(2, 300, 4, 2, 64, "open", dtype, "cuda",
                                                                                True).items()}
                first, first_grad, upstream = run(power_retention, inputs, chunk_size=chunk_size)
                kept, kept_grad, _ = run(power_retention, inputs, upstream, chunk_size=chunk_size, keep_states=True)
                if chunk_size is None:  # the forward pass takes the backward pass's chunks: other bits
                    for a, b in zip((*first, *first_grad.values()), (*kept, *kept_grad.values())):
                        self.assertLess(relative_error(b, a.double()), 2 * BOUND[dtype])
                    continue
                for a, b in zip((*first, *first_grad.values()), (*kept, *kept_grad.values())):
                    self.assertTrue(torch.equal(a, b))

    def test_strided_views_and_another_stream(self):
        packed = torch.randn(2, 260, 8, 64, device="cuda").bfloat16()
        Q, K, V = packed[:, 1:, :4], packed[:, 1:, 4:6], packed[:, 1:, 6:]
        want = power_retention(Q.contiguous(), K.contiguous(), V.contiguous())
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            got = power_retention(Q, K, V)
        side.synchronize()
        self.assertTrue(torch.equal(got, want))

    def test_gradients_of_degree_four(self):
        inputs = random_inputs(1, 200, 4, 2, 64, "open", torch.float32, "cuda")
        inputs = {name: x.requires_grad_() for name, x in inputs.items()}
        dY = torch.randn(1, 200, 4, 64, device="cuda")
        got = torch.autograd.grad(power_retention(**inputs, deg=4), list(inputs.values()), dY)
        doubles = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
        want = torch.autograd.grad(reference.power_retention(**doubles, deg=4, chunk_size=256), list(doubles.values()),
                                   dY.double())
        for name, x, y in zip(inputs, got, want):
            self.note(torch.float32, "d" + name + " of degree 4", x, y)

    def test_degree_four_and_inference(self):
        inputs = random_inputs(1, 300, 4, 2, 64, "open", torch.bfloat16, "cuda")
        doubles = {name: x.double() for name, x in inputs.items()}
        with torch.no_grad():
            Y = power_retention(**inputs, deg=4)
        want = reference.power_retention(doubles["Q"], doubles["K"], doubles["V"], doubles["log_G"], deg=4, chunk_size=512)
        self.assertLess(relative_error(Y, want), BOUND[torch.bfloat16])
        want = reference.power_retention(**doubles)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "power_retention_inference")  # a fold that goes through no kernel
            Y, state = token_by_token(inputs, 128)
        self.assertIsNotNone(state)
        self.assertLess(relative_error(Y, want), BOUND[torch.bfloat16])

    def test_what_there_is_no_kernel_for_is_named(self):
        inputs = random_inputs(1, 30, 2, 1, 64, "open", torch.bfloat16, "cuda")
        with self.assertRaisesRegex(NotImplementedError, "deg 4"):
            power_retention(**inputs, deg=4, return_final_state=True)
        with self.assertRaisesRegex(NotImplementedError, "float64"):
            power_retention(**{name: x.double() for name, x in inputs.items()})
        with self.assertRaisesRegex(NotImplementedError, "head"):
            power_retention(**random_inputs(1, 30, 2, 1, 40, "open", torch.bfloat16, "cuda"))
        x = torch.zeros(1, 65537, 1, 64, device="cuda", dtype=torch.bfloat16)
        with self.assertRaisesRegex(NotImplementedError, "chunk_size 65537"):
            power_retention(x, x, x, chunk_size=65537)
        inputs["Q"].requires_grad_()
        with self.assertRaisesRegex(NotImplementedError, "degree 6"):  # before the loss, not after it
            power_retention(**inputs, deg=6)


if __name__ == "__main__":
    unittest.main()
