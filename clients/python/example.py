#!/usr/bin/env python3
"""Streams a chat from a Statehouse server, with stubs that are generated from the protos as it starts.

    python3 example.py --address 127.0.0.1:50051 "Hi! My name is Ada." "What is my name?"
"""
import argparse
import pathlib
import sys
import tempfile

import grpc

import statehouse_stubs


def open_channel(args: argparse.Namespace) -> grpc.Channel:
    """Over TLS where that was asked for; a socket file needs none. The stubs have to be there."""
    from statehouse.client import is_local
    if (args.tls or args.tls_ca) and not args.address.startswith("unix:"):
        authority = pathlib.Path(args.tls_ca).read_bytes() if args.tls_ca else None
        return grpc.secure_channel(args.address, grpc.ssl_channel_credentials(authority))
    if args.token and not is_local(args.address):
        sys.exit(f"example.py: the token would go to {args.address} unencrypted; add --tls or --tls-ca")
    return grpc.insecure_channel(args.address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:50051", help="host:port or unix:PATH")
    parser.add_argument("--token", help="bearer token, if the server asks for one")
    parser.add_argument("--tls", action="store_true", help="speak TLS, trusting the system's authorities")
    parser.add_argument("--tls-ca", metavar="FILE", help="speak TLS, trusting this authority (PEM)")
    parser.add_argument("message", nargs="+", help="what to say, one turn each")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as out:
        try:
            statehouse_stubs.generate(out)
        except RuntimeError as error:
            sys.exit(f"example.py: {error}")
        sys.path.insert(0, out)
        from statehouse.v1 import generation_pb2 as pb
        from statehouse.v1 import generation_pb2_grpc as rpc

    stub = rpc.GenerationStub(open_channel(args))
    metadata = [("authorization", f"Bearer {args.token}")] if args.token else []
    messages = []
    for text in args.message:
        print(f"> {text}")
        messages.append(pb.ChatMessage(role="user", content=text))
        request = pb.GenerateRequest(chat=pb.Chat(messages=messages), sampling=pb.Sampling(temperature=0.0))
        answer = ""
        try:
            for event in stub.Generate(request, metadata=metadata, timeout=120):
                kind = event.WhichOneof("event")
                if kind in ("delta", "finished"):
                    piece = getattr(event, kind).text
                    answer += piece
                    print(piece, end="", flush=True)
        except grpc.RpcError as error:
            sys.exit(f"\nexample.py: {error.code().name}: {error.details()}")
        print()
        messages.append(pb.ChatMessage(role="assistant", content=answer))


if __name__ == "__main__":
    main()
