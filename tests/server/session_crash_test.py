#!/usr/bin/python3
"""kill -9 at random instants under load: what was acknowledged is there afterwards, and nothing else is.

Usage: session_crash_test.py <statehouse binary> <source directory>. Kills 10 times; with STATEHOUSE_SOAK_SECONDS above 0, 200
times; and on, at most 50 times, until each worker has had a turn. The seed is printed; STATEHOUSE_SEED repeats a run.

Each worker has a session of its own and takes turns in it, with idempotency keys. After a kill the session must hold exactly the
acknowledged turns, or those and the one turn that was in flight, whole. The turn in flight is then asked for again with its key,
and must be the one that is held, if it is; in the end all turns, asked again in an undisturbed server's memory, give the same ids.
"""

import os
import pathlib
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from served import Server  # noqa: E402

from statehouse import Client, StatehouseError  # noqa: E402
from statehouse.v1 import generation_pb2 as pb  # noqa: E402

KILLS = 200 if float(os.environ.get("STATEHOUSE_SOAK_SECONDS") or 0) > 0 else 10
WORKERS = 4
WORDS = ("Hi! My name is Petra.", "I live in Lund.", "My cat is called Biscuit.", "What is 12 plus 9?", "Where do I live?")


class Worker:
    """One session and what is known of it."""

    def __init__(self, index, seed):
        self.name = f"worker-{index}"
        self.random = random.Random(seed * 100 + index)
        self.turns = []  # of requests that were acknowledged
        self.ids = []  # what the session must hold
        self.pending = None  # the request in flight
        self.problem = None

    def next_request(self):
        request = Client.turn(self.name, self.random.choice(WORDS),
                              sampling=pb.Sampling(seed=self.random.getrandbits(32), temperature=1.0),
                              stop=pb.Stop(max_tokens=self.random.randint(1, 24)))
        request.session.idempotency_key = f"{self.name}/{len(self.turns)}"
        return request

    def run(self, address):
        """Takes turns until the server is gone. A client of one attempt: it does not ask again by itself."""
        client = Client(address, patience=0)
        try:
            while True:
                self.pending = self.pending or self.next_request()
                self.take(client)
        except StatehouseError:
            pass  # killed
        except Exception as error:  # noqa: BLE001
            self.problem = repr(error)
        finally:
            client.close()

    def take(self, client):
        ids = []
        for event in client.stream(self.pending):
            if event.HasField("started"):
                ids += event.started.prompt_token_ids
            ids += event.delta.token_ids
            if event.HasField("finished") and event.finished.HasField("stop_token_id"):
                ids.append(event.finished.stop_token_id)
            if event.HasField("done"):  # acknowledged
                self.ids += ids
                self.turns.append(self.pending)
                self.pending = None
        return ids

    def check(self, client):
        """After a restart."""
        held = client.token_ids(self.name) if self.turns or self.exists(client) else []
        if held != self.ids:
            # The turn in flight was recorded, and the kill came before its acknowledgement arrived.
            assert self.pending is not None, f"{self.name} holds {len(held)} ids, acknowledged were {len(self.ids)}"
            acknowledged = len(self.ids)
            assert held[:acknowledged] == self.ids, f"{self.name}: an acknowledged turn is not as it was"
            self.take(client)  # the same key: the first outcome
            assert held == self.ids, f"{self.name} holds {len(held) - acknowledged} ids of a turn of {len(self.ids) - acknowledged}"

    def exists(self, client):
        try:
            client.session(self.name)
            return True
        except StatehouseError:
            return False


def main():
    seed = int(os.environ.get("STATEHOUSE_SEED") or time.time())
    print(f"{KILLS} kills, seed {seed}", flush=True)
    chooser = random.Random(seed)
    workers = [Worker(index, seed) for index in range(WORKERS)]
    with tempfile.TemporaryDirectory() as folder:
        kills = 0
        # On a slow machine a worker may be killed before its first turn each time: then a few kills more.
        while kills < KILLS or (kills < KILLS + 50 and not all(worker.turns for worker in workers)):
            kills += 1
            server = Server("--session-dir", folder, "--session-durability", "sync", "--max-num-seqs", "8")
            with Client(server.address) as client:
                for worker in workers:
                    worker.check(client)
            threads = [threading.Thread(target=worker.run, args=(server.address,)) for worker in workers]
            for thread in threads:
                thread.start()
            time.sleep(chooser.uniform(0.0, 2.0))
            server.kill()
            for thread in threads:
                thread.join()
            assert not any(worker.problem for worker in workers), [worker.problem for worker in workers]
        server = Server("--session-dir", folder, "--session-durability", "sync")
        with Client(server.address) as client:
            for worker in workers:
                worker.check(client)
        assert server.stop() == 0
    # All of it once more, where nothing is ever lost.
    server = Server("--max-num-seqs", "8")
    with Client(server.address) as client:
        for worker in workers:
            again = Worker(0, 0)
            for turn in worker.turns:
                again.pending = turn
                again.take(client)
            assert again.ids == worker.ids, f"{worker.name}: not the ids of an undisturbed run"
    server.kill()
    print(f"{sum(len(worker.turns) for worker in workers)} turns of {sum(len(worker.ids) for worker in workers)} tokens "
          "are as they were acknowledged, and as an undisturbed server computes them")
    assert all(worker.turns for worker in workers), "a worker never came to anything"


if __name__ == "__main__":
    main()
