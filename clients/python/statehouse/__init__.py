"""A client for the Statehouse inference server.

    from statehouse import Client

    client = Client(["127.0.0.1:50051"])
    for piece in client.say("ada", "My name is Ada."):
        print(piece, end="", flush=True)
    print(client.ask("ada", "What is my name?").text)

A stream of a session carries on by itself when its server is lost: the client asks the next address with the same
idempotency key, from the position that has arrived, and the tokens are those of one undisturbed call.
"""
import pkgutil

# Stubs that were generated to another folder on the path (as tests do) belong to this package, too.
__path__ = pkgutil.extend_path(__path__, __name__)

from statehouse.client import Answer, Client, StatehouseError  # noqa: E402

__all__ = ["Answer", "Client", "StatehouseError"]
