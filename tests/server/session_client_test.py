#!/usr/bin/python3
"""Sessions as a Python program and a user see them: the client library and the commands against `statehouse serve`.

Usage: session_client_test.py <statehouse binary> <source directory>. Exits 77 (skipped) where grpcio, protobuf or the plugin are
missing.
"""

import concurrent.futures
import json
import pathlib
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import served  # noqa: E402
from served import Server, free_port, run  # noqa: E402

import grpc  # noqa: E402
from statehouse import Client, StatehouseError  # noqa: E402
from statehouse.v1 import generation_pb2 as pb  # noqa: E402
from statehouse.v1 import sessions_pb2 as spb  # noqa: E402

GREEDY = {"sampling": pb.Sampling(temperature=0.0)}


def long_turn(session, key="", seed=3, tokens=200):
    request = Client.turn(session, "Count from 1 to 20.", sampling=pb.Sampling(seed=seed, temperature=1.0),
                          stop=pb.Stop(max_tokens=tokens, ignore_eos=True))
    request.session.idempotency_key = key
    return request


class Restarts(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.server = self.start()
        self.client = Client(self.server.address, first_pause=0.05, longest_pause=0.2)

    def tearDown(self):
        self.client.close()
        self.server.kill()
        self.folder.cleanup()

    def start(self):
        return Server("--session-dir", self.folder.name, "--max-num-seqs", "4")

    def restart(self):
        self.server.kill()
        self.server = self.start()

    def undisturbed(self, request):
        """The answer's ids where nothing is ever lost."""
        fresh = pb.GenerateRequest()
        fresh.CopyFrom(request)
        fresh.session.session, fresh.session.idempotency_key = "undisturbed", ""
        return self.client.generate(fresh).token_ids

    def test_a_conversation_survives_kill_9(self):
        self.client.ask("ada", "Hi! My name is Petra.", **GREEDY)
        before = self.client.token_ids("ada")
        self.restart()
        self.assertEqual(self.client.token_ids("ada"), before)
        answer = self.client.ask("ada", "What is my name?", **GREEDY)
        self.assertIn("Petra", answer.text)
        self.assertEqual(answer.outcome.position_before, len(before))
        self.assertEqual(answer.outcome.exactness, pb.EXACTNESS_EXACT)

    def test_a_stream_carries_on_after_kill_9_with_the_same_tokens(self):
        request = long_turn("ada")
        losses = []
        client = Client(self.server.address, first_pause=0.05, longest_pause=0.2,
                        on_loss=lambda address, error: losses.append(error.code()))
        seen, kinds, killed = [], [], False
        for event in client.stream(request):
            kinds.append(event.WhichOneof("event"))
            seen += event.delta.token_ids
            if len(seen) > 20 and not killed:
                killed = True
                restart = threading.Thread(target=self.restart)
                restart.start()
        restart.join()
        client.close()
        self.assertTrue(losses)
        self.assertEqual((kinds.count("started"), kinds.count("finished"), kinds[-1]), (1, 1, "done"))
        self.assertEqual(seen, self.undisturbed(request))
        self.assertEqual(self.client.token_ids("ada")[-len(seen):], seen)

    def test_what_had_come_is_kept_of_a_turn_that_its_reader_stops(self):
        request = long_turn("ada", tokens=100000)
        request.session.on_failure = pb.ON_FAILURE_KEEP_DELIVERED
        got = []
        events = self.client.stream(request)
        for event in events:
            got += event.delta.token_ids
            if len(got) > 5:
                break
        events.close()
        held = self.client.token_ids("ada")
        self.assertIn(tuple(got), [tuple(held[begin:begin + len(got)]) for begin in range(len(held))])
        self.assertEqual(self.client.session("ada").turns, 1)

    def test_a_key_is_remembered_across_a_restart(self):
        request = long_turn("ada", key="once", tokens=20)
        first = self.client.generate(request)
        self.restart()
        again = self.client.generate(request)
        self.assertTrue(again.outcome.repeated)
        self.assertEqual(again.token_ids, first.token_ids)
        self.assertEqual(again.text, first.text)
        self.assertEqual(self.client.session("ada").turns, 1)

    def test_a_folder_serves_one_server(self):
        with self.assertRaisesRegex(RuntimeError, "another"):
            Server("--session-dir", self.folder.name, socket_name="second")

    def test_chat_goes_on_after_a_restart(self):
        chat = ("chat", "--address", self.server.address, "--session", "petra", "--temperature", "0")
        first = run(*chat, text="Hi! My name is Petra.\n")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.restart()
        second = run(*chat, text="What is my name?\n")
        self.assertEqual(second.returncode, 0, second.stderr)
        self.assertIn("Petra", second.stdout)

    def test_generate_and_the_commands(self):
        address = ("--address", self.server.address)
        made = run("generate", "--session", "notes", *address, "Hello", "--max-tokens", "5", "--ignore-eos", "--json")
        self.assertEqual(made.returncode, 0, made.stderr)
        position = json.loads(made.stdout)["session"]["position"]
        listed = run("sessions", "ls", *address)
        self.assertIn("notes", listed.stdout)
        shown = json.loads(run("sessions", "show", "notes", "--json", *address).stdout)
        self.assertEqual((shown["position"], shown["durability"]), (position, "sync"))
        forked = run("sessions", "fork", "notes", "copy", *address)
        self.assertEqual(forked.returncode, 0, forked.stderr)
        file = pathlib.Path(self.folder.name) / "notes.session"
        self.assertEqual(run("sessions", "export", "notes", str(file), *address).returncode, 0)
        self.assertNotEqual(run("sessions", "export", "notes", str(file), *address).returncode, 0, "the file is there")
        imported = run("sessions", "import", str(file), "back", *address)
        self.assertEqual(imported.returncode, 0, imported.stderr)
        self.assertEqual(self.client.token_ids("back"), self.client.token_ids("notes"))
        self.assertEqual(run("sessions", "rewind", "back", "--turns", "1", *address).returncode, 0)
        self.assertEqual(self.client.session("back").position, 0)
        for words in (("rebuild", "notes"), ("pin", "notes"), ("check",), ("gc",), ("break-lease", "notes"), ("rm", "copy", "back")):
            done = run("sessions", *words, *address)
            self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        self.assertEqual([s["name"] for s in json.loads(run("sessions", "ls", "--json", *address).stdout)["sessions"]], ["notes"])
        missing = run("sessions", "show", "nobody", *address)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("nobody", missing.stderr)


class Scripted(grpc.GenericRpcHandler):
    """A server that answers each call with the next function of a script, and remembers what it was asked."""

    def __init__(self, *script):
        self.script, self.calls = list(script), []  # of calls: (method, request, metadata)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[self])
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        if details.method.startswith("/grpc.health."):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01")  # SERVING
        if method == "Generate":
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self.next(method, request, context),
                pb.GenerateRequest.FromString, pb.GenerateEvent.SerializeToString)
        if method == "Cancel":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self.next(method, request, context),
                                                       pb.CancelRequest.FromString, pb.CancelResponse.SerializeToString)
        kinds = {"Get": (spb.GetSessionRequest, spb.GetSessionResponse), "Fork": (spb.ForkSessionRequest, spb.ForkSessionResponse),
                 "ImportStatus": (spb.ImportStatusRequest, spb.ImportStatusResponse)}
        request, response = kinds[method]
        return grpc.unary_unary_rpc_method_handler(lambda given, context: self.next(method, given, context),
                                                   request.FromString, response.SerializeToString)

    def next(self, method, request, context):
        self.calls.append((method, request, dict(context.invocation_metadata())))
        return self.script.pop(0)(request, context)


def lost(request, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def nobody():
    """An address that refuses connections."""
    return f"127.0.0.1:{free_port()}"


class Losses(unittest.TestCase):
    """What the client library does about lost servers, on servers that fail by a script."""

    def serve(self, *script):
        scripted = Scripted(*script)
        self.addCleanup(scripted.server.stop, 0)
        return scripted

    def client(self, *addresses, **options):
        client = Client(list(addresses), first_pause=0.01, **options)
        self.addCleanup(client.close)
        return client

    def test_a_pause_ends_with_the_callers_deadline(self):
        for addresses in ([nobody()], [self.serve(lost).address]):
            client = Client(addresses, first_pause=60, longest_pause=60)
            self.addCleanup(client.close)
            begin = time.monotonic()
            with self.assertRaises(StatehouseError):
                client.ask("ada", "Hello", timeout=0.5)
            self.assertLess(time.monotonic() - begin, 5)

    def test_a_call_that_reads_is_repeated(self):
        for method, request, answer in (("Get", spb.GetSessionRequest(session="ada"), spb.GetSessionResponse()),
                                        ("ImportStatus", spb.ImportStatusRequest(import_id="i"), spb.ImportStatusResponse())):
            scripted = self.serve(lost, lambda request, context: answer)
            self.assertEqual(self.client(scripted.address).sessions(method, request, timeout=10), answer)
            self.assertEqual(len(scripted.calls), 2)

    def test_a_call_that_changes_something_is_not_repeated(self):
        scripted = self.serve(lost, lambda request, context: spb.ForkSessionResponse())
        with self.assertRaises(StatehouseError) as caught:
            self.client(scripted.address).sessions("Fork", spb.ForkSessionRequest(session="ada"), timeout=10)
        self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(len(scripted.calls), 1)

    def test_a_call_that_changes_something_goes_to_whoever_serves(self):
        scripted = self.serve(lambda request, context: spb.ForkSessionResponse())
        begin = time.monotonic()
        self.client(nobody(), scripted.address).sessions("Fork", spb.ForkSessionRequest(session="ada"), timeout=30)
        self.assertLess(time.monotonic() - begin, 10)
        with self.assertRaises(StatehouseError) as caught:
            self.client(nobody()).sessions("Fork", spb.ForkSessionRequest(session="ada"), timeout=0.5)
        self.assertIn(caught.exception.code, (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))

    def test_every_call_on_a_session_names_it_to_a_proxy(self):
        scripted = self.serve(lambda request, context: spb.GetSessionResponse(), lambda request, context: spb.ImportStatusResponse(),
                              lambda request, context: iter([pb.GenerateEvent(done=pb.Done())]))
        client = self.client(scripted.address)
        client.session("ada")
        client.sessions("ImportStatus", spb.ImportStatusRequest(import_id="an-import"))
        client.ask("bör", "Hello")
        self.assertEqual([metadata["x-statehouse-session"] for _, _, metadata in scripted.calls],
                         ["ada", "an-import", "bör".encode().hex()])

    def test_the_position_to_go_on_from_never_falls_behind_the_callers(self):
        def breaks_off(request, context):
            yield pb.GenerateEvent(started=pb.Started(session_position=10, prompt_tokens=5))
            lost(request, context)

        def goes_on(request, context):
            yield pb.GenerateEvent(started=pb.Started(session_position=10, prompt_tokens=5))
            yield pb.GenerateEvent(delta=pb.Delta(token_ids=[1, 2]))
            lost(request, context)

        scripted = self.serve(breaks_off, goes_on, lambda request, context: iter([pb.GenerateEvent(done=pb.Done())]))
        request = Client.turn("ada", "Hello")
        request.session.idempotency_key, request.session.resume_from = "key", 40
        events = [event.WhichOneof("event") for event in self.client(scripted.address).stream(request)]
        self.assertEqual(events, ["started", "delta", "done"])
        self.assertEqual([asked.session.resume_from for _, asked, _ in scripted.calls], [40, 40, 42])


    def test_a_reader_that_stops_says_so_where_something_is_to_be_kept(self):
        cancelled = threading.Event()

        def answers(request, context):
            yield pb.GenerateEvent(delta=pb.Delta(token_ids=[1]))
            cancelled.wait(30)
            context.abort(grpc.StatusCode.CANCELLED, "as asked")

        def cancels(request, context):
            cancelled.set()
            return pb.CancelResponse(cancelled=True)

        scripted = self.serve(answers, cancels)
        request = Client.turn("ada", "Hello")
        request.session.on_failure = pb.ON_FAILURE_KEEP_DELIVERED
        events = self.client(scripted.address).stream(request)
        next(events)
        events.close()
        self.assertEqual([method for method, _, _ in scripted.calls], ["Generate", "Cancel"])
        self.assertEqual(scripted.calls[1][1].request_id, scripted.calls[0][2]["x-request-id"])

    def test_an_answer_that_the_loss_cut_off_is_no_answer(self):
        def breaks_off(request, context):
            yield pb.GenerateEvent(started=pb.Started())
            yield pb.GenerateEvent(delta=pb.Delta(token_ids=[1]))
            lost(request, context)

        def repeats(reason):
            events = [pb.GenerateEvent(finished=pb.Finished(reason=reason)),
                      pb.GenerateEvent(done=pb.Done(session=pb.SessionOutcome(repeated=True, position=7)))]
            return lambda request, context: iter(events)

        scripted = self.serve(breaks_off, repeats(pb.FINISH_REASON_CANCELLED), breaks_off, repeats(pb.FINISH_REASON_STOP))
        client = self.client(scripted.address)
        with self.assertRaises(StatehouseError) as caught:
            client.ask("ada", "Hello")
        self.assertEqual((caught.exception.code, caught.exception.outcome.position), (grpc.StatusCode.ABORTED, 7))
        self.assertTrue(client.ask("ada", "Hello").outcome.repeated)


class Principals(unittest.TestCase):
    def test_two_cannot_see_guess_or_time_one_another(self):
        tokens = pathlib.Path(served.SCRATCH.name) / "principals"
        tokens.write_text("ann anns-token-0123456789\nbob bobs-token-0123456789\n")
        with tempfile.TemporaryDirectory() as folder:
            server = Server("--session-dir", folder, "--auth-tokens-file", str(tokens), socket_name="principals-socket")
            try:
                ann = Client(server.address, token="anns-token-0123456789")
                bob = Client(server.address, token="bobs-token-0123456789")
                ann.ask("diary", "My code is 4172.", **GREEDY)
                there, absent = ann.session("diary").id, "0" * 32
                self.assertEqual(len(bob.sessions("List", spb.ListSessionsRequest()).sessions), 0)
                for method, request in (("Get", spb.GetSessionRequest), ("Delete", spb.DeleteSessionRequest),
                                        ("Rewind", spb.RewindSessionRequest), ("Fork", spb.ForkSessionRequest),
                                        ("BreakLease", spb.BreakLeaseRequest)):
                    words = set()
                    for session in (there, absent):
                        with self.assertRaises(StatehouseError) as caught:
                            bob.sessions(method, request(session=session))
                        self.assertEqual(caught.exception.code, grpc.StatusCode.NOT_FOUND)
                        words.add(str(caught.exception).replace(session, "ID"))
                    self.assertEqual(len(words), 1, words)
                self.assertEqual(ann.session("diary").turns, 1)
                # How long "not found" takes says nothing: the medians are those of one distribution.
                times = {there: [], absent: []}
                for _ in range(200):
                    for session, taken in times.items():
                        begin = time.perf_counter()
                        with self.assertRaises(StatehouseError):
                            bob.sessions("Get", spb.GetSessionRequest(session=session))
                        taken.append(time.perf_counter() - begin)
                medians = [sorted(taken)[len(taken) // 2] for taken in times.values()]
                self.assertLess(max(medians), 1.5 * min(medians), medians)
                ann.close()
                bob.close()
            finally:
                server.kill()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
