"""The client: see the package's text. One Client may be used from several threads."""
import contextlib
import dataclasses
import ipaddress
import pathlib
import random
import secrets
import threading
import time
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import grpc

from statehouse.v1 import generation_pb2 as pb
from statehouse.v1 import generation_pb2_grpc, sessions_pb2, sessions_pb2_grpc

OUTCOME_KEY = "statehouse-session-outcome-bin"
CUT_OFF = (pb.FINISH_REASON_CANCELLED, pb.FINISH_REASON_DEADLINE, pb.FINISH_REASON_ERROR)
# What a proxy or a dying connection makes of a lost server, beside UNAVAILABLE.
LOST_STREAM = ("RST_STREAM", "Stream removed", "Socket closed", "GOAWAY")
HEALTH_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse{status: SERVING}
# Methods of the Sessions service that may run twice: the others are not asked again once a server may have got them.
REPEATABLE = ("Get", "List", "Check", "ImportStatus")


class StatehouseError(Exception):
    """A call that failed for good: `code` is grpc's, and `outcome` says where a session stands, if it was told."""

    def __init__(self, code: grpc.StatusCode, message: str, outcome: Optional[pb.SessionOutcome] = None):
        super().__init__(f"{code.name}: {message}")
        self.code, self.outcome = code, outcome

    @classmethod
    def of(cls, error: grpc.RpcError) -> "StatehouseError":
        outcome = None
        for key, value in error.trailing_metadata() or ():
            if key == OUTCOME_KEY:
                outcome = pb.SessionOutcome.FromString(value)
        return cls(error.code(), error.details(), outcome)


@dataclasses.dataclass
class Answer:
    """What came of one request."""
    text: str = ""
    token_ids: List[int] = dataclasses.field(default_factory=list)
    seed: int = 0
    finish_reason: int = 0
    done: Optional[pb.Done] = None

    @property
    def outcome(self) -> Optional[pb.SessionOutcome]:
        return self.done.session if self.done is not None and self.done.HasField("session") else None


class Client:
    """Speaks to the first of `addresses` that answers; each is host:port or unix:PATH.

    `patience` is how many seconds may pass without an event before a lost stream is given up. `on_loss` is told of each
    loss, with the address and the error.
    """

    def __init__(self, addresses: Union[str, Sequence[str]] = "127.0.0.1:50051", *, token: Optional[str] = None,
                 tls: bool = False, tls_ca: Optional[str] = None, token_in_clear: bool = False, patience: float = 60.0,
                 first_pause: float = 0.1, longest_pause: float = 5.0,
                 on_loss: Optional[Callable[[str, grpc.RpcError], None]] = None):
        self._addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if not self._addresses:
            raise ValueError("addresses: expected at least one")
        self._tls = tls or tls_ca is not None
        self._tls_ca = pathlib.Path(tls_ca).read_bytes() if tls_ca else None
        for address in self._addresses:
            if token and not self._tls and not token_in_clear and not is_local(address):
                raise ValueError(f"the token would go to {address} unencrypted; set tls or tls_ca, or token_in_clear")
        self._metadata: List[Tuple[str, str]] = [("authorization", f"Bearer {token}")] if token else []
        self._patience, self._first_pause, self._longest_pause = patience, first_pause, longest_pause
        self._on_loss = on_loss
        self._lock = threading.Lock()
        self._channels: Dict[str, grpc.Channel] = {}
        self._current = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()

    # --- generation ---

    def stream(self, request: pb.GenerateRequest, timeout: Optional[float] = None) -> Iterator[pb.GenerateEvent]:
        """The events of one request. With `session` they go on after a lost server, as those of one undisturbed call. To stop
        early, close the iterator: of a session's turn `on_failure` says what is kept then."""
        if not request.HasField("session"):
            yield from self._stream_once(request, timeout)
            return
        attempt = pb.GenerateRequest()
        attempt.CopyFrom(request)
        attempt.return_token_ids = True  # their number is the position to go on from
        if not attempt.session.idempotency_key:
            attempt.session.idempotency_key = secrets.token_hex(16)
        deadline = None if timeout is None else time.monotonic() + timeout
        started = finished = lost = is_cut = False
        last_event, pause = time.monotonic(), self._first_pause
        while True:
            remaining = None if deadline is None else max(0.001, deadline - time.monotonic())
            address = self._address()
            try:
                with contextlib.closing(self._call(address, attempt, remaining)) as events:
                    for event in events:
                        last_event, pause = time.monotonic(), self._first_pause
                        kind = event.WhichOneof("event")
                        if (kind == "started" and started) or (kind == "finished" and finished):
                            continue
                        if kind == "started":
                            started = True
                            answer = event.started.session_position + event.started.prompt_tokens
                            attempt.session.resume_from = max(attempt.session.resume_from, answer)
                        elif kind == "delta":
                            attempt.session.resume_from += len(event.delta.token_ids)
                        elif kind == "finished":
                            finished, is_cut = True, event.finished.reason in CUT_OFF
                        elif kind == "done" and lost and is_cut and event.done.session.repeated:
                            # No answer to pass on as one: the loss ended it, and what came of it was kept.
                            raise StatehouseError(grpc.StatusCode.ABORTED, "the answer was cut off while the server was lost; "
                                                  "the session keeps what came of it: ask again", event.done.session)
                        yield event
                return
            except grpc.RpcError as error:
                lost = lost or _is_loss(error)
                # ABORTED after a loss: the turn that was lost is still held for us, here or under a dead server's lease.
                may_retry = _is_loss(error) or (lost and error.code() == grpc.StatusCode.ABORTED)
                now = time.monotonic()
                is_late = deadline is not None and now >= deadline
                if not may_retry or is_late or now - last_event > self._patience:
                    raise StatehouseError.of(error) from error
                if self._on_loss is not None:
                    self._on_loss(address, error)
                self._move_on(address)
                nap = pause * random.uniform(0.5, 1.0)
                time.sleep(nap if deadline is None else max(0.0, min(nap, deadline - time.monotonic())))
                pause = min(2 * pause, self._longest_pause)

    def generate(self, request: pb.GenerateRequest, timeout: Optional[float] = None) -> Answer:
        """The whole answer of one request, of its first output."""
        answer = Answer()
        for event in self.stream(request, timeout):
            kind = event.WhichOneof("event")
            if kind == "started":
                answer.seed = event.started.seed
            elif kind == "delta" and event.delta.index == 0:
                answer.text += event.delta.text
                answer.token_ids += event.delta.token_ids
            elif kind == "finished" and event.finished.index == 0:
                answer.text += event.finished.text
                answer.finish_reason = event.finished.reason
            elif kind == "done":
                answer.done = event.done
        return answer

    @staticmethod
    def turn(session: str, message: str, **fields) -> pb.GenerateRequest:
        """A request that says `message` in a session, which is made if there is none of that name."""
        chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=message)])
        return pb.GenerateRequest(chat=chat, session=pb.SessionUse(session=session, create_if_missing=True), **fields)

    def say(self, session: str, message: str, timeout: Optional[float] = None, **fields) -> Iterator[str]:
        """Says `message` in a session and brings the answer's text, piece by piece."""
        for event in self.stream(self.turn(session, message, **fields), timeout):
            piece = event.delta.text or event.finished.text
            if piece:
                yield piece

    def ask(self, session: str, message: str, timeout: Optional[float] = None, **fields) -> Answer:
        """The same as a whole."""
        return self.generate(self.turn(session, message, **fields), timeout)

    # --- sessions ---

    def sessions(self, method: str, request, timeout: Optional[float] = 30.0):
        """A unary call of the Sessions service: `client.sessions("Get", GetSessionRequest(session="ada"))`. What only reads is
        asked again, at the next address, while no server answers. All else goes to the first address whose health check
        says that it serves, and once: if that server is lost then, the call may have been carried out."""
        end = time.monotonic() + (timeout if timeout is not None else self._patience)
        metadata = self._metadata + _routing(getattr(request, "session", "") or getattr(request, "import_id", ""))
        pause = self._first_pause
        while True:
            address = self._address() if method in REPEATABLE else self._serving(metadata, end)
            call = getattr(sessions_pb2_grpc.SessionsStub(self._channel(address)), method)
            try:
                return call(request, metadata=metadata, timeout=max(0.001, end - time.monotonic()))
            except grpc.RpcError as error:
                is_lost = error.code() == grpc.StatusCode.UNAVAILABLE
                if is_lost:
                    self._move_on(address)
                if not is_lost or method not in REPEATABLE or time.monotonic() + pause > end:
                    raise StatehouseError.of(error) from error
                time.sleep(pause)
                pause = min(2 * pause, self._longest_pause)

    def session(self, name: str) -> sessions_pb2.Session:
        """What a session holds."""
        return self.sessions("Get", sessions_pb2.GetSessionRequest(session=name)).session

    def token_ids(self, name: str) -> List[int]:
        """All token ids of a session."""
        ids: List[int] = []
        while True:
            page = self.sessions("Get", sessions_pb2.GetSessionRequest(session=name, transcript=True, **{"from": len(ids)}))
            ids += page.token_ids
            if not page.token_ids or len(ids) >= page.session.position:
                return ids

    # --- addresses ---

    def _stream_once(self, request: pb.GenerateRequest, timeout: Optional[float]) -> Iterator[pb.GenerateEvent]:
        try:
            with contextlib.closing(self._call(self._address(), request, timeout)) as events:
                yield from events
        except grpc.RpcError as error:
            raise StatehouseError.of(error) from error

    def _call(self, address: str, request: pb.GenerateRequest, timeout: Optional[float]) -> Iterator[pb.GenerateEvent]:
        stub = generation_pb2_grpc.GenerationStub(self._channel(address))
        request_id, metadata = secrets.token_hex(16), self._metadata + _routing(request.session.session)
        call = stub.Generate(request, metadata=metadata + [("x-request-id", request_id)], timeout=timeout)
        try:
            yield from call
        except (GeneratorExit, KeyboardInterrupt):
            # A reader that stops on purpose. A connection that breaks off keeps nothing, so what is to be kept is said.
            if request.session.on_failure == pb.ON_FAILURE_KEEP_DELIVERED:
                self._stop(stub, call, request_id, metadata)
            raise
        finally:
            call.cancel()  # nothing, if it has ended

    def _stop(self, stub: generation_pb2_grpc.GenerationStub, call, request_id: str, metadata: List[Tuple[str, str]]) -> None:
        """Ends a call and waits, not for long, until its turn is settled."""
        patience = threading.Timer(self._longest_pause, call.cancel)
        patience.start()
        try:
            stub.Cancel(pb.CancelRequest(request_id=request_id), metadata=metadata, timeout=self._longest_pause)
            for _ in call:
                pass
        except grpc.RpcError:
            pass  # CANCELLED, as it was asked for; or the server is lost, which takes the turn with it
        finally:
            patience.cancel()

    def _address(self) -> str:
        with self._lock:
            return self._addresses[self._current % len(self._addresses)]

    def _serving(self, metadata: List[Tuple[str, str]], end: float) -> str:
        """The first address from the current one on whose server takes calls, or the current one when time is up."""
        pause = self._first_pause
        while True:
            address = self._address()
            patience = max(0.001, min(self._longest_pause, end - time.monotonic()))
            check = self._channel(address).unary_unary("/grpc.health.v1.Health/Check")  # of the server as a whole
            try:
                serves = check(b"", metadata=metadata, timeout=patience) == HEALTH_SERVING
            except grpc.RpcError as error:  # some other word of a proxy: somebody is there
                serves = error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            if serves or time.monotonic() + pause > end:
                return address
            self._move_on(address)
            time.sleep(pause)
            pause = min(2 * pause, self._longest_pause)

    def _move_on(self, failed: str) -> None:
        """To the next address, unless another thread has moved on already."""
        with self._lock:
            if self._addresses[self._current % len(self._addresses)] == failed:
                self._current += 1

    def _channel(self, address: str) -> grpc.Channel:
        with self._lock:
            if address not in self._channels:
                # A server that comes back is looked for soon.
                options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000),
                           ("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_http_proxy", 0)]
                if self._tls and not address.startswith("unix:"):
                    credentials = grpc.ssl_channel_credentials(self._tls_ca)
                    self._channels[address] = grpc.secure_channel(address, credentials, options=options)
                else:
                    self._channels[address] = grpc.insecure_channel(address, options=options)
            return self._channels[address]


def _is_loss(error: grpc.RpcError) -> bool:
    """Is the server gone, rather than unwilling?"""
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return True
    broken = error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    return broken and any(words in (error.details() or "") for words in LOST_STREAM)


def _routing(session: str) -> List[Tuple[str, str]]:
    """Tells a proxy before several servers which session a call is on, so that it goes where its snapshots are."""
    if not session:
        return []
    plain = all(" " < character <= "~" for character in session)
    return [("x-statehouse-session", session if plain else session.encode().hex())]


def is_local(address: str) -> bool:
    """Whether what is sent there stays on this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if address.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
