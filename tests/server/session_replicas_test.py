"""Several servers, one conversation: on Redis and on a folder, behind nginx with the documented configuration.

A server is killed in mid-answer, paused beyond its lease, and drained; each time the conversation goes on elsewhere with
the tokens of an undisturbed run. Everything is started and stopped here.
"""
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from served import SCRATCH, SOURCE, Server, environment, eventually, free_port  # noqa: E402

import grpc  # noqa: E402
from statehouse import Client, StatehouseError  # noqa: E402
from statehouse.v1 import generation_pb2 as pb  # noqa: E402
from statehouse.v1 import sessions_pb2  # noqa: E402

REDIS, NGINX = shutil.which("redis-server"), shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SHORT_LEASE = 5.0  # where a test waits for it to run out; a live server on a busy machine must be able to renew it


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Process:
    """A helper program that listens on a port; gone with the test."""

    def __init__(self, command, port):
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        env=environment())
        if not eventually(lambda: listens(port) or self.process.poll() is not None) or self.process.poll() is not None:
            self.process.kill()
            raise RuntimeError(f"{command[0]} did not start: {self.process.communicate()[1]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.process.stderr.close()


def start_redis(name):
    folder, port = pathlib.Path(SCRATCH.name) / name, free_port()
    folder.mkdir()
    command = [REDIS, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly",
               "yes", "--appendfsync", "always"]
    return Process(command, port), f"redis://127.0.0.1:{port}/0"


def start_nginx(name, servers):
    """The documented configuration with the addresses of this test."""
    folder, port = pathlib.Path(SCRATCH.name) / name, free_port()
    folder.mkdir()
    text = (SOURCE / "docker/nginx-sessions.conf").read_text()
    for number, server in enumerate(servers, 1):
        text, count = re.subn(rf"statehouse-{number}:50051", f"127.0.0.1:{server.port}", text)
        assert count == 1, "the documented configuration has no place for this server"
    text = text.replace("listen 50050", f"listen 127.0.0.1:{port}").replace("/tmp/statehouse-nginx", f"{folder}/nginx")
    path = folder / "nginx.conf"
    path.write_text(text)
    return Process([NGINX, "-e", "stderr", "-c", str(path), "-p", str(folder), "-g", "daemon off;"], port), port


class Replica(Server):
    def __init__(self, name, store, lease):
        self.name = name
        self.port = free_port()
        super().__init__("--session-store", store, "--replica-id", name, "--session-lease", f"{lease}s", "--host",
                         "127.0.0.1", "--shutdown-timeout", "1s", socket_name=name, port=self.port)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


def turn(session, text, tokens=300):
    return Client.turn(session, text, sampling=pb.Sampling(seed=11, temperature=0.8),
                       stop=pb.Stop(max_tokens=tokens, ignore_eos=True))


class ReplicasTest:
    """The cases, for each kind of store."""

    def start_store(self):
        raise NotImplementedError

    def setUp(self):
        self.url = self.start_store()
        self.replicas = []

    def start_replicas(self, lease=60.0):
        """Two servers on the test's store; a lease lasts for so many seconds."""
        for number in (1, 2):
            self.replicas.append(Replica(f"{self.kind}-{self._testMethodName}-{number}"[:60], self.url, lease))
            self.addCleanup(self.replicas[-1].kill)
        return self.replicas

    def client(self, *addresses, **options):
        client = Client(list(addresses), first_pause=0.05, longest_pause=0.5, **options)
        self.addCleanup(client.close)
        return client

    def undisturbed(self, *texts):
        """Ids of a session after these turns, and of each answer, on one server that nobody disturbs."""
        with Client(self.replicas[0].address) as client:
            answers = [client.generate(turn("undisturbed", text)) for text in texts]
            return client.token_ids("undisturbed"), answers

    def test_any_server_continues_any_session(self):
        self.start_replicas()
        ids, answers = self.undisturbed("Count to three.", "And on to five.", "Why?")
        clients = [self.client(replica.address) for replica in self.replicas]
        for number, text in enumerate(["Count to three.", "And on to five.", "Why?"]):
            answer = clients[number % 2].generate(turn("ada", text))
            self.assertEqual(answer.token_ids, answers[number].token_ids)
        for client in clients:
            self.assertEqual(client.token_ids("ada"), ids)

    @unittest.skipIf(NGINX is None, "nginx is not installed")
    def test_a_server_killed_in_mid_answer(self):
        self.start_replicas(SHORT_LEASE)
        ids, answers = self.undisturbed("Tell me a story.", "How does it end?")
        nginx, port = start_nginx(f"{self.kind}-nginx", self.replicas)
        self.addCleanup(nginx.stop)
        losses = []
        client = self.client(f"127.0.0.1:{port}", on_loss=lambda address, error: losses.append(error.code()))
        self.assertEqual(client.generate(turn("ada", "Tell me a story.")).token_ids, answers[0].token_ids)
        killed, got, text = [], [], ""
        for event in client.stream(turn("ada", "How does it end?")):
            got += event.delta.token_ids
            text += event.delta.text + event.finished.text
            if not killed and len(got) >= 5:
                killed += [self.busy_replica("ada")]
                killed[0].kill()
        self.assertTrue(losses, "the kill was not noticed, so nothing was shown")
        self.assertEqual(got, answers[1].token_ids)
        self.assertEqual(text, answers[1].text)
        self.assertEqual(client.token_ids("ada"), ids)

    def busy_replica(self, session):
        owner = self.client(*[replica.address for replica in self.replicas]).session(session).lease_owner
        return next(replica for replica in self.replicas if replica.name == owner)

    def test_a_server_paused_beyond_its_lease_cannot_append(self):
        sleeper, other = self.start_replicas(SHORT_LEASE)
        ids, answers = self.undisturbed("Tell me a story.", "How does it end?")
        self.client(sleeper.address).generate(turn("ada", "Tell me a story."))
        # The sleeper is in the middle of a turn of its own, with another text, when it is paused.
        errors, began = [], threading.Event()

        def stray():
            client = Client(sleeper.address)
            try:
                for event in client.stream(turn("ada", "Something else.", 3000), timeout=120):
                    if event.WhichOneof("event") == "delta":
                        began.set()
            except StatehouseError as error:
                errors.append(error)
            began.set()
            client.close()

        thread = threading.Thread(target=stray)
        thread.start()
        self.assertTrue(began.wait(60))
        sleeper.pause()
        time.sleep(SHORT_LEASE + 0.5)
        answer = self.client(other.address).generate(turn("ada", "How does it end?"))
        self.assertEqual(answer.token_ids, answers[1].token_ids)
        sleeper.go_on()
        thread.join(120)
        self.assertEqual([error.code for error in errors], [grpc.StatusCode.ABORTED])
        for replica in self.replicas:
            self.assertEqual(self.client(replica.address).token_ids("ada"), ids)

    def test_a_drained_server_loses_no_turn(self):
        leaving, staying = self.start_replicas()
        ids, answers = self.undisturbed("Tell me a story.", "How does it end?")
        self.client(leaving.address).generate(turn("ada", "Tell me a story."))
        self.assertEqual(leaving.stop(), 0)
        client = self.client(staying.address)
        held = client.session("ada")
        self.assertEqual(held.lease_owner, "")
        answer = client.generate(turn("ada", "How does it end?"))
        self.assertEqual(answer.token_ids, answers[1].token_ids)
        self.assertEqual(client.token_ids("ada"), ids)
        # The head's snapshot was in the store, so that nothing was computed again; it lacks the last token, which no step
        # had read when the answer ended.
        self.assertEqual(answer.done.usage.cached_tokens, held.checkpoints[-1].position)
        self.assertGreaterEqual(held.checkpoints[-1].position, held.position - 1)

    def test_a_lease_can_be_broken_before_it_runs_out(self):
        sleeper, other = self.start_replicas()
        self.client(sleeper.address).generate(turn("ada", "Hello."))
        began = threading.Event()

        def stray():
            with Client(sleeper.address) as client:
                try:
                    for event in client.stream(turn("ada", "Something else.", 3000), timeout=60):
                        if event.WhichOneof("event") == "delta":
                            began.set()
                except StatehouseError:
                    pass

        thread = threading.Thread(target=stray)
        thread.start()
        self.assertTrue(began.wait(60))
        sleeper.pause()
        paused = time.monotonic()
        try:
            client = self.client(other.address)
            with self.assertRaises(StatehouseError) as held:
                client.generate(turn("ada", "Is anybody there?"))
            self.assertEqual(held.exception.code, grpc.StatusCode.ABORTED)
            broken = client.sessions("BreakLease", sessions_pb2.BreakLeaseRequest(session="ada"))
            self.assertEqual(broken.owner, sleeper.name)
            client.generate(turn("ada", "Is anybody there?"))
            self.assertLess(time.monotonic() - paused, 50, "too slow a machine to tell: the lease may have run out by itself")
        finally:
            sleeper.go_on()
            thread.join(60)


class OnFolder(ReplicasTest, unittest.TestCase):
    kind = "folder"

    def start_store(self):
        return str(pathlib.Path(SCRATCH.name) / f"store-{self._testMethodName}")


@unittest.skipIf(REDIS is None, "redis-server is not installed")
class OnRedis(ReplicasTest, unittest.TestCase):
    kind = "redis"

    def start_store(self):
        redis, url = start_redis(f"redis-{self._testMethodName}")
        self.addCleanup(redis.stop)
        return url


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
