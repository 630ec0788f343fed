#!/usr/bin/python3
"""An independent client: Python's grpcio and nothing but the .proto files.

Usage: python_client_test.py <statehouse binary> <source directory>. Starts a server on the demo checkpoint, generates stubs from
the protos with protoc, and checks streaming, cancelling, log probabilities, typed errors, health, reflection, metrics and the end
by SIGTERM. Exits 77 (skipped) where grpcio, protobuf or the plugin are missing.
"""

import pathlib
import shutil
import signal
import subprocess
import sys
import time
import unittest
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import served  # noqa: E402
from served import SCRATCH, SOURCE, free_port  # noqa: E402

import grpc  # noqa: E402


def generate_stubs(out):
    """Compiles the public protos beside ours. The health proto lives in package `grpc`, which would hide grpcio: it is renamed."""
    protos = pathlib.Path(out) / "protos"
    protos.mkdir()
    shutil.copy(SOURCE / "proto/grpc/health/v1/health.proto", protos / "health.proto")
    for name in ("status", "error_details"):
        shutil.copy(SOURCE / f"proto/google/rpc/{name}.proto", protos / f"rpc_{name}.proto")
    plugin = shutil.which("grpc_python_plugin")
    subprocess.run(["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}",
                    f"--plugin=protoc-gen-grpc_python={plugin}", *[path.name for path in protos.iterdir()]], check=True)


generate_stubs(SCRATCH.name)
import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import rpc_error_details_pb2  # noqa: E402
import rpc_status_pb2  # noqa: E402
from statehouse.v1 import admin_pb2, admin_pb2_grpc, generation_pb2, generation_pb2_grpc  # noqa: E402
from statehouse.v1 import models_pb2, models_pb2_grpc, tokenizer_pb2, tokenizer_pb2_grpc  # noqa: E402


class Server(served.Server):
    """On a port, under the name that the tests expect."""

    def __init__(self, *flags, metrics_port=0):
        super().__init__("--served-model-name", "demo", *flags, port=0, metrics_port=metrics_port)


def details(error):
    """The google.rpc details of a failed call, by type."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            status = rpc_status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            return {detail.type_url.rsplit(".", 1)[1]: detail.value for detail in status.details}
    return {}


class PythonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", "4", "--max-num-queued-reqs", "2")
        cls.channel = grpc.insecure_channel(cls.server.address)
        cls.generation = generation_pb2_grpc.GenerationStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        status = cls.server.stop()
        assert status == 0, f"SIGTERM must end the server with status 0, not {status}: {cls.server.lines[-5:]}"
        assert cls.server.lines[-1]["message"] == "stopped", cls.server.lines[-1]

    def request(self, text="My name is Ada.", max_tokens=16, **fields):
        chat = generation_pb2.Chat(messages=[generation_pb2.ChatMessage(role="user", content=text)])
        return generation_pb2.GenerateRequest(
            chat=chat, stop=generation_pb2.Stop(max_tokens=max_tokens, ignore_eos=True),
            sampling=generation_pb2.Sampling(seed=1, temperature=1.0), **fields)

    def test_stream(self):
        call = self.generation.Generate(self.request(), metadata=[("x-request-id", "from-python")])
        kinds, ids, text = [], [], ""
        for event in call:
            kind = event.WhichOneof("event")
            kinds.append(kind)
            if kind == "started":
                self.assertEqual(event.started.request_id, "from-python")
                self.assertEqual(event.started.model, "demo")
                self.assertEqual(event.started.seed, 1)
            elif kind == "delta":
                ids += event.delta.token_ids
                text += event.delta.text
            elif kind == "finished":
                text += event.finished.text
                self.assertEqual(event.finished.reason, generation_pb2.FINISH_REASON_LENGTH)
            elif kind == "done":
                self.assertEqual(event.done.usage.completion_tokens, 16)
                self.assertGreater(event.done.timings.total, 0)
        self.assertEqual((kinds[0], kinds[-2], kinds[-1]), ("started", "finished", "done"))
        self.assertEqual(len(ids), 16)
        self.assertIn(("x-request-id", "from-python"), call.initial_metadata())
        tokenizer = tokenizer_pb2_grpc.TokenizerStub(self.channel)
        self.assertEqual(tokenizer.Detokenize(tokenizer_pb2.DetokenizeRequest(token_ids=ids)).text, text)

    def test_same_seed_same_answer(self):
        first = self.generation.GenerateOnce(self.request())
        second = self.generation.GenerateOnce(self.request())
        self.assertEqual(first.outputs[0].token_ids, second.outputs[0].token_ids)
        self.assertEqual(first.outputs[0].text, second.outputs[0].text)

    def test_logprobs(self):
        answer = self.generation.GenerateOnce(self.request(logprobs=5, prompt_logprobs=2))
        self.assertEqual(len(answer.outputs[0].logprobs), 16)
        for token in answer.outputs[0].logprobs:
            self.assertLessEqual(token.logprob, 0)
            values = [top.logprob for top in token.top]
            self.assertEqual(len(values), 5)
            self.assertEqual(values, sorted(values, reverse=True))
        self.assertEqual(len(answer.prompt_logprobs), len(answer.prompt_token_ids) - 1)

    def test_cancel_by_dropping_the_call(self):
        call = self.generation.Generate(self.request(max_tokens=1000000), metadata=[("x-request-id", "drop-me")])
        next(call)
        call.cancel()
        self.assert_no_slot_is_held()

    def test_cancel_by_id(self):
        call = self.generation.Generate(self.request(max_tokens=1000000), metadata=[("x-request-id", "cancel-me")])
        next(call)
        self.assertTrue(self.generation.Cancel(generation_pb2.CancelRequest(request_id="cancel-me")).cancelled)
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in call:
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)
        self.assertFalse(self.generation.Cancel(generation_pb2.CancelRequest(request_id="cancel-me")).cancelled)
        self.assert_no_slot_is_held()

    def test_deadline(self):
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in self.generation.Generate(self.request(max_tokens=1000000), timeout=0.3):
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assert_no_slot_is_held()

    def test_a_bad_field_is_named(self):
        bad = self.request()
        bad.sampling.top_p = 3
        with self.assertRaises(grpc.RpcError) as caught:
            self.generation.GenerateOnce(bad)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        violations = rpc_error_details_pb2.BadRequest.FromString(details(caught.exception)["BadRequest"]).field_violations
        self.assertEqual(violations[0].field, "sampling.top_p")
        self.assertIn("3", violations[0].description)

    def test_overload_says_when_to_come_back(self):
        calls = []
        try:
            for _ in range(4):  # one slot each
                calls.append(self.generation.Generate(self.request(max_tokens=1000000)))
                next(calls[-1])
            for _ in range(2):  # these wait
                calls.append(self.generation.Generate(self.request(max_tokens=1000000)))
            deadline = time.time() + 30
            admin = admin_pb2_grpc.AdminStub(self.channel)
            while admin.GetStatus(admin_pb2.GetStatusRequest()).queue.requests < 2 and time.time() < deadline:
                time.sleep(0.02)
            with self.assertRaises(grpc.RpcError) as caught:
                self.generation.GenerateOnce(self.request())
            self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            retry = rpc_error_details_pb2.RetryInfo.FromString(details(caught.exception)["RetryInfo"])
            self.assertGreater(retry.retry_delay.seconds + retry.retry_delay.nanos, 0)
        finally:
            for call in calls:
                call.cancel()
        self.assert_no_slot_is_held()

    def test_models_and_status(self):
        models = models_pb2_grpc.ModelsStub(self.channel)
        self.assertEqual([model.name for model in models.ListModels(models_pb2.ListModelsRequest()).models], ["demo"])
        with self.assertRaises(grpc.RpcError) as caught:
            models.GetModel(models_pb2.GetModelRequest(name="other"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        status = admin_pb2_grpc.AdminStub(self.channel).GetStatus(admin_pb2.GetStatusRequest())
        self.assertEqual(status.slots.total, 4)
        self.assertTrue(status.serving)

    def test_health(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        for name in ("", "statehouse.v1.Generation", "statehouse.v1.Sessions", "statehouse.v1.Admin"):
            self.assertEqual(health.Check(health_pb2.HealthCheckRequest(service=name)).status,
                             health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection_lists_the_services(self):
        # ServerReflectionRequest{list_services: "*"} (field 7) and its answer, read as bytes: no stubs are packaged.
        call = self.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        answer = next(call(iter([b"\x3a\x01*"])))
        for name in (b"statehouse.v1.Generation", b"statehouse.v1.Sessions", b"statehouse.v1.Tokenizer", b"statehouse.v1.Models",
                     b"statehouse.v1.Admin", b"grpc.health.v1.Health"):
            self.assertIn(name, answer)

    def assert_no_slot_is_held(self):
        admin = admin_pb2_grpc.AdminStub(self.channel)
        deadline = time.time() + 30
        while time.time() < deadline:
            status = admin.GetStatus(admin_pb2.GetStatusRequest())
            if status.slots.used == 0 and status.slots.zeroing == 0 and status.queue.requests == 0:
                return
            time.sleep(0.02)
        self.fail(f"slots are still held: {status}")


class Endings(unittest.TestCase):
    def test_sigterm_finishes_what_is_in_flight(self):
        server = Server()
        with grpc.insecure_channel(server.address) as channel:
            chat = generation_pb2.Chat(messages=[generation_pb2.ChatMessage(role="user", content="Hello.")])
            call = generation_pb2_grpc.GenerationStub(channel).Generate(generation_pb2.GenerateRequest(
                chat=chat, stop=generation_pb2.Stop(max_tokens=200, ignore_eos=True)))
            next(call)
            server.terminate()
            kinds = [event.WhichOneof("event") for event in call]
            self.assertEqual(kinds[-1], "done")
        self.assertEqual(server.wait(), 0)

    def test_a_second_signal_ends_at_once(self):
        server = Server()
        with grpc.insecure_channel(server.address) as channel:
            call = generation_pb2_grpc.GenerationStub(channel).Generate(generation_pb2.GenerateRequest(
                text="Hello", stop=generation_pb2.Stop(max_tokens=10000000, ignore_eos=True)))
            next(call)
            server.terminate()
            deadline = time.time() + 30
            while not any(line["message"].startswith("stopping") for line in server.lines) and time.time() < deadline:
                time.sleep(0.02)
            start = time.time()
            server.terminate()
            self.assertEqual(server.wait(), 128 + signal.SIGTERM)
            self.assertLess(time.time() - start, 5)

    def test_example_speaks_tls_and_keeps_its_token_from_the_wire(self):
        folder = pathlib.Path(SCRATCH.name)
        cert, key, tokens = folder / "cert.pem", folder / "key.pem", folder / "example-tokens"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
                       check=True, capture_output=True)
        tokens.write_text("alice alices-token-0123456789\n")

        def example(*words):
            return subprocess.run([sys.executable, str(SOURCE / "clients/python/example.py"), *words], capture_output=True,
                                  text=True, timeout=120)

        server = Server("--tls-cert", str(cert), "--tls-key", str(key), "--auth-tokens-file", str(tokens))
        try:
            talk = example("--address", server.address, "--tls-ca", str(cert), "--token", "alices-token-0123456789", "Hi!")
            self.assertEqual(talk.returncode, 0, talk.stderr)
            self.assertIn("> Hi!", talk.stdout)
        finally:
            self.assertEqual(server.stop(), 0)
        refused = example("--address", "192.0.2.1:50051", "--token", "secret", "Hi!")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("unencrypted", refused.stderr)

    def test_metrics_and_tokens(self):
        tokens = pathlib.Path(SCRATCH.name) / "tokens"
        tokens.write_text("alice alices-token-0123456789\n")
        port = free_port()
        server = Server("--auth-tokens-file", str(tokens), metrics_port=port)
        try:
            with grpc.insecure_channel(server.address) as channel:
                models = models_pb2_grpc.ModelsStub(channel)
                with self.assertRaises(grpc.RpcError) as caught:
                    models.ListModels(models_pb2.ListModelsRequest())
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
                models.ListModels(models_pb2.ListModelsRequest(),
                                  metadata=[("authorization", "Bearer alices-token-0123456789")])
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            self.assertIn('vllm:num_requests_running{model_name="demo",engine="0"} 0', text)
            self.assertIn('statehouse_slots_total{model_name="demo",engine="0"}', text)
        finally:
            self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
