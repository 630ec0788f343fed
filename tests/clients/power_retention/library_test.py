"""The C interface on a machine without a GPU or with one: what it knows of layouts, and how it refuses. Needs no PyTorch.

STATEHOUSE_RETENTION_LIBRARY names the library.
"""
import ctypes
import importlib.util
import pathlib
import unittest

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "clients/python/power_retention/power_retention"
# By its file: importing the package would import PyTorch.
spec = importlib.util.spec_from_file_location("library", PACKAGE / "library.py")
library = importlib.util.module_from_spec(spec)
spec.loader.exec_module(library)


def shape(**changes):
    return library.make(library.Shape, **{"device": 0, "dtype": 0, "heads_q": 4, "heads_kv": 2, "head_dim": 64, "degree": 2,
                                          "scale": 0.0, "chunk": 0, **changes})


class Library(unittest.TestCase):
    def setUp(self):
        self.library = library.load()

    def test_rows_of_a_state_are_pairs_in_tiles(self):
        self.assertEqual(self.library.state_rows(64), 2304)
        self.assertEqual(self.library.state_rows(128), 8704)
        self.assertEqual(self.library.state_rows(60), 0)
        self.assertEqual(self.library.state_row(1, 2, 64), 10)
        self.assertEqual(self.library.state_row(0, 8, 64), 64)
        self.assertEqual(self.library.state_row(8, 0, 64), -1)

    def test_backward_is_there_for_every_type_and_refused_by_name_elsewhere(self):
        for dtype in range(3):
            for head_dim in (64, 128):
                self.library.check_backward(shape(dtype=dtype, head_dim=head_dim))
        for changes, word in (({"degree": 6}, "degree 6"), ({"head_dim": 40}, "head_dim 40")):
            with self.assertRaisesRegex(NotImplementedError, word):
                self.library.check_backward(shape(**changes))

    def test_short_sequences_are_one_chunk_of_the_backward_pass(self):
        self.assertEqual(self.library.backward_chunk(shape(), 777), 777)
        self.assertEqual(self.library.backward_chunk(shape(), 1 << 20), 1024)

    def test_wrong_arguments_are_named_before_a_gpu_is_asked_for(self):
        with self.assertRaisesRegex(ValueError, "dtype 9"):
            self.library.check_backward(shape(dtype=9))
        other = shape()
        other.size += 8
        with self.assertRaisesRegex(ValueError, "another version"):
            self.library.check_backward(other)
        with self.assertRaisesRegex(ValueError, "plan is null"):
            self.library.forward(None, library.make(library.ForwardArgs), None)
        with self.assertRaisesRegex(ValueError, "plan is null"):
            self.library.backward(None, library.make(library.BackwardArgs), None)
        self.library.plan_free(None)

    def test_a_plan_needs_a_gpu_and_says_so(self):
        try:
            plan = self.library.plan_make(shape(), [0, 100])
        except RuntimeError as error:
            self.assertRegex(str(error), "driver|device")  # there is none here
        else:
            self.assertGreater(self.library.forward_workspace(plan), 0)
            self.assertGreater(self.library.backward_workspace(plan, 1), self.library.backward_workspace(plan, 0))
            with self.assertRaisesRegex(ValueError, "Q is null"):
                self.library.forward(plan, library.make(library.ForwardArgs), None)
            self.library.plan_free(plan)

    def test_a_message_is_cut_to_the_room_there_is(self):
        text = ctypes.create_string_buffer(b"xxxxxxxxxxxx", 12)
        function = ctypes.CDLL(str(library.path())).statehouse_retention_check_backward
        function.argtypes = [ctypes.c_void_p, library.Message]
        code = function(None, library.Message(ctypes.cast(text, ctypes.c_char_p), 6))
        self.assertEqual((code, text.raw), (library.INVALID_ARGUMENT, b"shape\0xxxxxx"))
        self.assertEqual(function(None, library.Message(None, 0)), library.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main()
