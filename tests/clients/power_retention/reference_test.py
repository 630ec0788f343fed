"""The operators without a GPU: against the definition, and their gradients against central differences."""
import unittest
from unittest import mock

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit(77) from None  # no PyTorch here: ctest says that the test was skipped

from definition import random_inputs, relative_error, retention, token_by_token
from power_retention import RetentionState, power_retention, power_retention_inference, reference, state_rows
from power_retention.state import to_canonical, to_padded

BOUND = 1e-11  # of sums in double in another order


class Forward(unittest.TestCase):
    def assert_is_definition(self, inputs, deg=2, scale=None, chunk_size=None, bound=BOUND):
        S, z = inputs.pop("S", None), inputs.pop("z", None)
        state = None if S is None else RetentionState(S, z)
        Y, after = power_retention(**inputs, deg=deg, scale=scale, chunk_size=chunk_size, initial_state=state,
                                   return_final_state=True)
        doubles = {name: x if x is None else x.double() for name, x in inputs.items()}
        scale = inputs["Q"].shape[-1]**-0.5 if scale is None else scale
        want = retention(**doubles, deg=deg, scale=scale, S=None if S is None else S.double(),
                         z=None if z is None else z.double())
        for name, got, expected in zip(("Y", "S", "sum_of_keys"), (Y, *after), want):
            self.assertLess(relative_error(got, expected), bound, name)

    def test_every_length_around_a_chunk_with_and_without_gates_and_state(self):
        for t in (1, 7, 8, 9, 40):
            for gates in ("none", "open", "half", "closing"):
                for state in (False, True):
                    with self.subTest(t=t, gates=gates, state=state):
                        self.assert_is_definition(random_inputs(2, t, 4, 2, 8, gates, state=state), chunk_size=8)

    def test_one_chunk_groups_of_heads_and_a_scale_of_ones_own(self):
        for heads_q, heads_kv in ((1, 1), (3, 3), (12, 2), (16, 1)):
            with self.subTest(heads_q=heads_q, heads_kv=heads_kv):
                self.assert_is_definition(random_inputs(1, 20, heads_q, heads_kv, 16), scale=0.3)

    def test_degree_four(self):
        self.assert_is_definition(random_inputs(1, 20, 4, 2, 6, "half", state=True, deg=4), deg=4, chunk_size=7)

    def test_float32_and_half_types_keep_their_precision(self):
        for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
            with self.subTest(dtype=dtype):
                inputs = random_inputs(1, 30, 2, 1, 16, "open", dtype)
                Y = power_retention(**inputs, chunk_size=16)
                self.assertEqual(Y.dtype, dtype)
                self.assert_is_definition(inputs, chunk_size=16, bound=bound)

    def test_cut_in_two_with_the_state_carried_over_is_the_whole(self):
        inputs = random_inputs(2, 50, 4, 2, 8, "half")
        whole, after = power_retention(**inputs, chunk_size=16, return_final_state=True)
        first = {name: x[:, :23] for name, x in inputs.items()}
        second = {name: x[:, 23:] for name, x in inputs.items()}
        Y1, state = power_retention(**first, chunk_size=16, return_final_state=True)
        Y2, state = power_retention(**second, chunk_size=16, initial_state=state, return_final_state=True)
        self.assertLess(relative_error(torch.cat([Y1, Y2], 1), whole), BOUND)
        self.assertLess(relative_error(state.S, after.S), BOUND)

    def test_keys_orthogonal_to_the_query_and_closed_gates_stay_finite(self):
        Q, K = torch.zeros(1, 3, 1, 8), torch.zeros(1, 3, 1, 8)
        Q[..., 0], K[..., 1] = 1, 1
        V, log_G = torch.ones(1, 3, 1, 8), torch.full((1, 3, 1), float("-inf"))
        self.assertTrue(torch.equal(power_retention(Q, K, V, log_G), torch.zeros(1, 3, 1, 8)))
        inputs = random_inputs(1, 9, 1, 1, 8)
        inputs["log_G"].fill_(float("-inf"))
        self.assertLess(relative_error(power_retention(**inputs, chunk_size=4), inputs["V"]), BOUND)

    def test_no_rows_leave_the_state_as_it_is(self):
        inputs = random_inputs(1, 0, 2, 1, 8, "half", state=True)
        state = RetentionState(inputs.pop("S"), inputs.pop("z"))
        Y, after = power_retention(**inputs, initial_state=state, return_final_state=True)
        self.assertEqual(tuple(Y.shape), (1, 0, 2, 8))
        self.assertTrue(torch.equal(after.S, state.S))


class Gradients(unittest.TestCase):
    def test_of_every_input_against_central_differences(self):
        for deg, chunk, gates in ((2, 3, "half"), (2, None, "none"), (2, 3, "none"), (4, 3, "half")):
            with self.subTest(deg=deg, chunk=chunk, gates=gates):
                inputs = random_inputs(1, 8, 2, 1, 4, gates, state=True, deg=deg)
                names = [name for name, x in inputs.items() if x is not None]

                def run(*tensors):
                    given = dict(zip(names, tensors))
                    state = RetentionState(given.pop("S"), given.pop("z"))
                    Y, after = power_retention(**given, deg=deg, chunk_size=chunk, initial_state=state,
                                               return_final_state=True)
                    return Y, after.S, after.sum_of_keys

                tensors = [inputs[name].requires_grad_() for name in names]
                self.assertTrue(torch.autograd.gradcheck(run, tensors))  # random upstream gradients, all outputs


class Inference(unittest.TestCase):
    def test_token_by_token_with_folds_is_the_whole_sequence(self):
        inputs = random_inputs(2, 45, 4, 2, 8, "half")
        want = power_retention(**inputs, chunk_size=64)
        Y, state = token_by_token(inputs, 16)
        self.assertIsNotNone(state)
        self.assertLess(relative_error(Y, want), BOUND)

    def test_a_fold_without_a_kernel_is_the_same_and_says_why(self):
        inputs = random_inputs(1, 20, 4, 2, 8, "half")
        want, state = token_by_token(inputs, 16)
        with mock.patch("power_retention.inference.power_retention", side_effect=NotImplementedError("degree 2 is missing")):
            with self.assertWarnsRegex(UserWarning, "PyTorch operations: degree 2 is missing"):
                got, without = token_by_token(inputs, 16)
        self.assertTrue(torch.equal(got, want) and torch.equal(without, state))

    def test_several_new_rows_see_their_own_gates(self):
        inputs = random_inputs(1, 12, 4, 2, 8, "half", state=True)
        state = RetentionState(inputs.pop("S"), inputs.pop("z"))
        want = power_retention(**inputs, initial_state=state)[:, 7:]
        Y, S, _ = power_retention_inference(inputs["Q"][:, 7:], inputs["K"], inputs["V"], inputs["log_G"], state)
        self.assertLess(relative_error(Y, want), BOUND)
        self.assertIs(S, state.S)  # nothing was folded

    def test_the_state_alone_answers(self):
        inputs = random_inputs(1, 1, 4, 2, 8, "none", state=True)
        Y, _, _ = power_retention_inference(inputs["Q"], None, None, None, inputs["S"], inputs["z"])
        query = reference.expand(inputs["Q"][:, 0].unflatten(1, (2, 2)), 2)
        want = torch.einsum("bhgD,bhDd->bhgd", query, inputs["S"]) / torch.einsum(
            "bhgD,bhD->bhg", query, inputs["z"])[..., None]
        self.assertLess(relative_error(Y[:, 0], want.flatten(1, 2)), BOUND)


class Layouts(unittest.TestCase):
    def test_there_and_back_gives_the_same_bits(self):
        for d in (8, 16, 64):
            S, z = torch.randn(2, 3, state_rows(d), d), torch.randn(2, 3, state_rows(d))
            back = to_canonical(to_padded(RetentionState(S, z)))
            self.assertTrue(torch.equal(back.S, S) and torch.equal(back.sum_of_keys, z), d)


class Refusals(unittest.TestCase):
    def refused(self, kind, word, **changes):
        inputs = random_inputs(1, 5, 4, 2, 8)
        with self.assertRaises(kind) as caught:
            power_retention(**{**inputs, **changes})
        self.assertIn(word, str(caught.exception))

    def test_each_names_the_argument(self):
        x = torch.zeros(1, 5, 4, 8, dtype=torch.float64)
        self.refused(ValueError, "Q", Q=x[0])
        self.refused(ValueError, "dtype", Q=x.float())
        self.refused(ValueError, "multiple", Q=x[:, :, :3])
        self.refused(ValueError, "head size", Q=x[..., :4])
        self.refused(ValueError, "rows", Q=x[:, :4])
        self.refused(ValueError, "log_G", log_G=torch.zeros(1, 5, 4))
        self.refused(ValueError, "deg 3", deg=3)
        self.refused(TypeError, "by name", deg=torch.zeros(1))
        self.refused(ValueError, "scale", scale=0)
        self.refused(ValueError, "chunk_size 0", chunk_size=0)
        self.refused(ValueError, "sum_of_keys", initial_state=torch.zeros(1, 2, 36, 8))
        self.refused(ValueError, "initial_state", initial_state=RetentionState(torch.zeros(1, 2, 35, 8), torch.zeros(1, 2, 35)))

    def test_inference_needs_rows_or_a_state(self):
        with self.assertRaisesRegex(ValueError, "initial_state"):
            power_retention_inference(torch.zeros(1, 1, 2, 8), None, None)


if __name__ == "__main__":
    unittest.main()
