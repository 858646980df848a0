"""Small honest doubles of the services that a gateway talks to: real gRPC, simple decisions, everything remembered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from forebay.errors import AlreadyExists, BadInput, NotAuthenticated, NotFound, NotPossible, Refusal, Unavailable
from forebay.keys import ForebayKey, new_key, seal_secret
from forebay.wire.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    batches_pb2_grpc,
    content_pb2,
    content_pb2_grpc,
    ephemeral_keys_pb2,
    ephemeral_keys_pb2_grpc,
    fleet_pb2,
    registry_pb2,
    registry_pb2_grpc,
    scheduler_pb2,
    scheduler_pb2_grpc,
    security_pb2_grpc,
    types_pb2,
)
from tests.gateway.batches_double import BatchesDouble
from tests.gateway.security_double import SecurityDouble

TOKEN = "the-gateways-own-token"


def authorize(method: str, bearer: str | None) -> str:
    if bearer != TOKEN:
        raise NotAuthenticated(f"{method} needs the gateway's token.")
    return "gateway"


class _Broadcast:
    """Updates for every watcher, each from a first one of its own."""

    def __init__(self) -> None:
        self.watchers: list[asyncio.Queue[Any]] = []

    def send(self, update: Any) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(update)

    async def stream(self, first: Any) -> AsyncIterator[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self.watchers.append(queue)
        try:
            if first is not None:
                yield first
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)


class _TooLarge(BadInput):
    """A file has more bytes than one may have."""

    reason = Refusal.BODY_TOO_LARGE


class ContentDouble:
    """What users keep, in memory. Of two things made in the same moment, the smaller id is the older."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, str], content_pb2.ContentItem] = {}
        """By kind and id."""
        self.is_broken = False
        """It answers and can do nothing, like one whose database is away."""
        self.slow_s = 0.0
        """What it takes to put something."""
        self.calls: list[str] = []
        self.blobs: dict[str, bytes] = {}
        """By the id of the file."""
        self.most_blob_bytes = 512 * 1024**2
        self.cut_after: int | None = None
        """A download breaks off after so many bytes."""

    def kept(self, kind: str) -> list[content_pb2.ContentItem]:
        """Of every user, the oldest first."""
        things = (thing for thing in self.things.values() if thing.kind == kind)
        return sorted(things, key=lambda thing: (thing.created_at_us, thing.id))

    async def Put(self, request: content_pb2.PutContentRequest, context: Any) -> content_pb2.PutContentResponse:
        self._note("Put")
        item = request.item
        if not (item.id and item.user_id and item.created_at_us):
            raise BadInput("An id, a user and a moment are needed.")
        known = self.things.get((item.kind, item.id))
        if known is not None and known.user_id != item.user_id:
            raise AlreadyExists(f"The id {item.id} is taken.")
        await asyncio.sleep(self.slow_s)
        self.things[item.kind, item.id] = item
        return content_pb2.PutContentResponse()

    async def Get(self, request: content_pb2.GetContentRequest, context: Any) -> content_pb2.GetContentResponse:
        self._note("Get")
        return content_pb2.GetContentResponse(item=self._find(request.user_id, request.kind, request.id))

    async def GetChain(self, request: content_pb2.GetChainRequest, context: Any) -> content_pb2.GetChainResponse:
        self._note("GetChain")
        chain, before = [], request.id
        while before:
            chain.append(self._find(request.user_id, request.kind, before))
            before = chain[-1].parent_id
        if len(chain) > request.most:
            raise NotPossible(f"{request.id} and those before it are more than {request.most}.")
        return content_pb2.GetChainResponse(items=reversed(chain))

    async def List(self, request: content_pb2.ListContentRequest, context: Any) -> content_pb2.ListContentResponse:
        self._note("List")
        things = [
            thing
            for thing in self.kept(request.kind)
            if thing.user_id == request.user_id and request.parent_id in ("", thing.parent_id)
        ]
        if request.descending:
            things.reverse()
        if request.after:
            ids = [thing.id for thing in things]
            if request.after not in ids:
                raise NotFound(f"There is no {request.kind} {request.after}.")
            things = things[ids.index(request.after) + 1 :]
        limit = request.limit or 20
        return content_pb2.ListContentResponse(items=things[:limit], has_more=len(things) > limit)

    async def Delete(
        self, request: content_pb2.DeleteContentRequest, context: Any
    ) -> content_pb2.DeleteContentResponse:
        self._note("Delete")
        try:
            self._find(request.user_id, request.kind, request.id)
        except NotFound:
            return content_pb2.DeleteContentResponse()
        del self.things[request.kind, request.id]
        if request.kind == "conversation":
            inside = [thing for thing in self.kept("item") if thing.parent_id == request.id]
            for thing in inside:
                del self.things[thing.kind, thing.id]
        return content_pb2.DeleteContentResponse(was_there=True)

    async def Upload(
        self, request_iterator: AsyncIterator[content_pb2.UploadRequest], context: Any
    ) -> content_pb2.UploadResponse:
        self._note("Upload")
        item = (await anext(aiter(request_iterator))).item
        if item.blob_bytes > self.most_blob_bytes:
            raise _TooLarge(f"A file may have {self.most_blob_bytes} bytes.")
        await context.send_initial_metadata((("forebay-accepted", "true"),))
        blob = bytearray()
        async for part in request_iterator:
            if len(part.piece) > 256 * 1024:
                raise BadInput("A piece is too long.")
            blob += part.piece
        if context.cancelled():
            raise asyncio.CancelledError
        if item.blob_bytes and len(blob) != item.blob_bytes:
            raise BadInput(f"{len(blob)} bytes came and blob_bytes says {item.blob_bytes}.")
        item.blob_bytes = len(blob)
        self.things[item.kind, item.id], self.blobs[item.id] = item, bytes(blob)
        return content_pb2.UploadResponse(item=item)

    async def Download(
        self, request: content_pb2.DownloadRequest, context: Any
    ) -> AsyncIterator[content_pb2.DownloadResponse]:
        self._note("Download")
        blob = self.blobs[self._find(request.user_id, request.kind, request.id).id]
        most = len(blob) if self.cut_after is None else self.cut_after
        for begin in range(0, most, 256 * 1024):
            yield content_pb2.DownloadResponse(piece=blob[begin : min(most, begin + 256 * 1024)])
        if self.cut_after is not None:
            raise Unavailable("The disk is away.")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.is_broken:
            raise Unavailable("The database is away.")

    def _find(self, user_id: str, kind: str, id: str) -> content_pb2.ContentItem:
        thing = self.things.get((kind, id))
        if thing is None or thing.user_id != user_id:
            raise NotFound(f"There is no {kind} {id}.")
        return thing


class AdminDouble:
    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self.contents = ContentDouble()
        """Served beside it."""
        self.batches = BatchesDouble(self.contents)
        """So is this."""
        self.ephemerals = EphemeralsDouble()
        self.security = SecurityDouble()
        """And this."""
        self._version = 1
        self._keys: dict[str, admin_pb2.KeyPrincipal] = {}
        self._bearers: dict[str, dict[str, str]] = {}
        """By backend and label."""
        self._principals = _Broadcast()
        self._credentials = _Broadcast()
        self._model_rules = _Broadcast()
        self._ruling = admin_pb2.ModelRulesUpdate(snapshot=True)
        self.known_versions: list[int] = []

    def add_key(self, **fields: Any) -> ForebayKey:
        key = new_key()
        principal = admin_pb2.KeyPrincipal(
            key_id=key.public_id,
            secret_hmac=seal_secret(self._pepper, key.secret),
            user_id="u-1",
            user_name="alice",
            group_id="g-1",
            role=admin_pb2.ROLE_MEMBER,
            state=admin_pb2.KEY_STATE_ACTIVE,
            band_cap=types_pb2.BAND_INTERACTIVE,
        )
        for name, value in fields.items():
            if isinstance(value, list | tuple):
                getattr(principal, name).extend(value)
            elif isinstance(value, Message):
                getattr(principal, name).CopyFrom(value)
            else:
                setattr(principal, name, value)
        self._change(principal)
        return key

    def change_key(self, key: ForebayKey, **fields: Any) -> None:
        changed = admin_pb2.KeyPrincipal()
        changed.CopyFrom(self._keys[key.public_id])
        for name, value in fields.items():
            setattr(changed, name, value)
        self._change(changed)

    def revoke(self, key: ForebayKey, *, cut_running: bool = False) -> None:
        principal = self._keys[key.public_id]
        changed = admin_pb2.KeyPrincipal()
        changed.CopyFrom(principal)
        changed.state = admin_pb2.KEY_STATE_REVOKED
        changed.cut_running = cut_running
        self._change(changed)

    def trust(self, key: ForebayKey, *public_keys: bytes) -> None:
        """Those and no others."""
        changed = admin_pb2.KeyPrincipal()
        changed.CopyFrom(self._keys[key.public_id])
        changed.signing_keys[:] = public_keys
        self._change(changed)

    def set_credential(self, backend_id: str, bearer: str, **others: str) -> None:
        """`others`: by label."""
        self._version += 1
        self._bearers[backend_id] = {"default": bearer, **others}
        self._credentials.send(self._credentials_snapshot())

    def _change(self, principal: admin_pb2.KeyPrincipal) -> None:
        self._version += 1
        self._keys[principal.key_id] = principal
        self._principals.send(admin_pb2.PrincipalsUpdate(version=self._version, keys=[principal]))

    def _credentials_snapshot(self) -> admin_pb2.CredentialsUpdate:
        return admin_pb2.CredentialsUpdate(
            version=self._version,
            snapshot=True,
            credentials=[
                admin_pb2.BackendCredential(
                    backend_id=backend_id,
                    bearer=held["default"],
                    all=[admin_pb2.LabelledBearer(label=label, bearer=bearer) for label, bearer in held.items()],
                )
                for backend_id, held in self._bearers.items()
            ],
        )

    async def WatchPrincipals(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.PrincipalsUpdate]:
        self.known_versions.append(request.known_version)
        first = admin_pb2.PrincipalsUpdate(version=self._version)
        if request.known_version != self._version:
            first = admin_pb2.PrincipalsUpdate(version=self._version, snapshot=True, keys=self._keys.values())
        async for update in self._principals.stream(first):
            yield update

    def rule(
        self,
        rules: Sequence[admin_pb2.ModelRule] = (),
        aliases: Sequence[admin_pb2.ModelAlias] = (),
        fallbacks: Sequence[admin_pb2.ModelFallback] = (),
        prices: Sequence[admin_pb2.ModelPolicy] = (),
    ) -> None:
        """These there are from now on, and no others."""
        self._version += 1
        self._ruling = admin_pb2.ModelRulesUpdate(
            snapshot=True, rules=rules, aliases=aliases, fallbacks=fallbacks, prices=prices
        )
        self._ruling.version = self._version
        self._model_rules.send(self._ruling)

    async def WatchModelRules(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.ModelRulesUpdate]:
        first = admin_pb2.ModelRulesUpdate()
        first.CopyFrom(self._ruling)
        first.version = self._version
        async for update in self._model_rules.stream(first):
            yield update

    async def WatchCredentials(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.CredentialsUpdate]:
        async for update in self._credentials.stream(self._credentials_snapshot()):
            yield update


class RegistryDouble:
    def __init__(self) -> None:
        self.version = 0
        self._backends: dict[str, registry_pb2.Backend] = {}
        self._pools: list[fleet_pb2.PoolSpec] = []
        self._fleet = _Broadcast()

    def put(
        self,
        backend_id: str,
        url: str,
        *,
        models: Sequence[str] = ("fake-model",),
        kind: types_pb2.EngineKind.ValueType = types_pb2.ENGINE_KIND_VLLM,
        healthy: bool = True,
        has_credential: bool = False,
        pool: str = "default",
        context_length: int | None = 4096,
        slots: int = 4,
        capabilities: Sequence[str] = (),
        engine_names: Mapping[str, str] | None = None,
    ) -> None:
        self.version += 1
        backend = registry_pb2.Backend(
            id=backend_id,
            name=f"name-of-{backend_id}",
            url=url,
            kind=kind,
            pool=pool,
            slots=slots,
            enabled=True,
            health=registry_pb2.BACKEND_HEALTH_HEALTHY if healthy else registry_pb2.BACKEND_HEALTH_UNHEALTHY,
            has_credential=has_credential,
            models=[
                registry_pb2.BackendModel(
                    name=name,
                    context_length=context_length,
                    capabilities=capabilities,
                    engine_name=(engine_names or {}).get(name, ""),
                )
                for name in models
            ],
        )
        self._backends[backend_id] = backend
        self._fleet.send(registry_pb2.FleetUpdate(term_us=1, version=self.version, backends=[backend]))

    def describe(self, *pools: fleet_pb2.PoolSpec) -> None:
        """These there are from now on, and no others."""
        self.version += 1
        self._pools = list(pools)
        self._fleet.send(
            registry_pb2.FleetUpdate(term_us=1, version=self.version, pools=self._pools, pools_changed=True)
        )

    async def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[registry_pb2.FleetUpdate]:
        first = registry_pb2.FleetUpdate(
            term_us=1,
            version=self.version,
            snapshot=True,
            backends=self._backends.values(),
            pools=self._pools,
            pools_changed=True,
        )
        async for update in self._fleet.stream(first):
            yield update


class SchedulerDouble:
    """First come, first served; on the first backend with room that was not excluded. Its state goes with it: a new one
    rebuilds from Hello. All of a backend's slots are the one gateway's ceiling. A frame answers a frame, heartbeats
    included; what a test wants said besides goes with the next one (`say`)."""

    def __init__(self, slots: dict[str, int], *, epoch: int = 1, leader: str | None = None) -> None:
        """`leader`: it stands by and says that this address leads."""
        self.slots = slots
        self.epoch = epoch
        self.leader = leader
        self.is_silent = False
        """It takes everything and says nothing, like one that is cut off."""
        self.is_deaf = False
        """It goes on speaking and takes nothing, like one that what is said to it does not reach."""
        self.leaves_next = False
        """It says that it drains."""
        self.refused = 0
        self.ceiling_acks: list[scheduler_pb2.CeilingAck] = []
        self.credit_starts: list[scheduler_pb2.CreditStart] = []
        self.credit_returns: list[int] = []
        self.allotment_returns: list[int] = []
        self.seen: list[scheduler_pb2.GatewayFrame] = []
        self.rate: scheduler_pb2.RateStanding | None = None
        """Told with every grant."""
        self._say = scheduler_pb2.SchedulerFrame()
        self._lent: dict[int, str] = {}
        self.hellos: list[scheduler_pb2.Hello] = []
        self.submits: list[scheduler_pb2.Submit] = []
        self.settles: list[scheduler_pb2.Settle] = []
        self.cancels: list[bytes] = []
        self.nacks: list[scheduler_pb2.Nack] = []
        self.progress: list[scheduler_pb2.Progress] = []
        self.first_tokens: list[scheduler_pb2.FirstToken] = []
        self.frames = 0
        self.byes = 0
        self.queue: list[scheduler_pb2.Submit] = []
        self.held: dict[bytes, tuple[str, int, scheduler_pb2.Submit]] = {}
        """Ledger id → backend, lease, request."""
        self.confirms = True
        self.renewed_ago_ms: int | None = 0
        self.reject_with: scheduler_pb2.Reject | None = None
        self.rejects: dict[str, scheduler_pb2.Reject] = {}
        """By model."""
        self.serves: dict[str, set[str]] = {}
        """Backend → its models; one that is not here has all."""
        self.revokes: list[scheduler_pb2.Revoke] = []
        self._leases = 0
        self._seq = 0

    def used(self) -> Counter[str]:
        used: Counter[str] = Counter()
        for backend, _, request in self.held.values():
            used[backend] += request.width
        return used

    def say(self, **fields: Any) -> None:
        """What the next frame says besides. Of credits and allotments, the next one that answers a heartbeat."""
        self._say.MergeFrom(scheduler_pb2.SchedulerFrame(**fields))

    def lend(self, number: int, backend: str, slots: int, *, leases: int = 100, valid_ms: int = 1000) -> None:
        credit = scheduler_pb2.Credit(
            id=number,
            backend_id=backend,
            pool="default",
            model="fake-model",
            slots=slots,
            valid_ms=valid_ms,
            first_lease=1000 * number,
            leases=leases,
        )
        self.say(credits=[credit])

    async def Session(self, frames: Any, context: Any) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        self._seq = 0
        if self.leader is not None:
            self.refused += 1
            raise Unavailable(f"This scheduler stands by; {self.leader} leads.")
        heard = 0
        async for frame in frames:
            if self.is_deaf and heard:
                self._seq += 1
                yield scheduler_pb2.SchedulerFrame(
                    epoch=scheduler_pb2.Epoch(term_us=1, revision=self.epoch), seq=self._seq, ack_seq=heard
                )
                continue
            heard = frame.seq
            self.frames += 1
            self.seen.append(frame)
            out = scheduler_pb2.SchedulerFrame(
                epoch=scheduler_pb2.Epoch(term_us=1, revision=self.epoch), ack_seq=frame.seq
            )
            if frame.HasField("hello"):
                self._take_hello(frame.hello)
                out.welcome.CopyFrom(scheduler_pb2.Welcome(heartbeat_ms=50, fence_ms=90_000))
                out.ceilings.extend(
                    scheduler_pb2.Ceiling(backend_id=backend, pool="default", slots=slots, version=1)
                    for backend, slots in self.slots.items()
                )
            self._take(frame, out)
            if self.is_silent:
                continue
            self._dispatch(out)
            self._speak(frame, out)
            out.draining = self.leaves_next
            out.revokes.extend(self.revokes)
            self.revokes.clear()
            if self.renewed_ago_ms is not None:
                out.renewed_ago_ms = self.renewed_ago_ms
            self._seq += 1
            out.seq = self._seq
            yield out

    def _speak(self, frame: scheduler_pb2.GatewayFrame, out: scheduler_pb2.SchedulerFrame) -> None:
        said, self._say = self._say, scheduler_pb2.SchedulerFrame()
        if not frame.heartbeat:
            self._say.credits.extend(said.credits)
            self._say.allotments.extend(said.allotments)
            del said.credits[:], said.allotments[:]
        for credit in said.credits:
            self._lent[credit.id] = credit.backend_id
            credit.heartbeat_seq = frame.seq
        for allotment in said.allotments:
            allotment.heartbeat_seq = frame.seq
        out.MergeFrom(said)

    def _take_hello(self, hello: scheduler_pb2.Hello) -> None:
        self.hellos.append(hello)
        self.held = {h.request.ledger_id: (h.backend_id, h.lease, h.request) for h in hello.held}
        self.queue = list(hello.queued)

    def _take(self, frame: scheduler_pb2.GatewayFrame, out: scheduler_pb2.SchedulerFrame) -> None:
        for start in frame.credit_starts:
            self.credit_starts.append(start)
            self.held[start.request.ledger_id] = (self._lent[start.credit_id], start.lease, start.request)
        self.credit_returns.extend(returned.id for returned in frame.credit_returns)
        self.allotment_returns.extend(returned.id for returned in frame.allotment_returns)
        self.ceiling_acks.extend(frame.ceiling_acks)
        self.submits.extend(frame.submits)
        self.queue.extend(frame.submits)
        for cancel in frame.cancels:
            self.cancels.append(cancel.ledger_id)
            self.queue = [s for s in self.queue if s.ledger_id != cancel.ledger_id]
            self.held.pop(cancel.ledger_id, None)  # granted, and its gateway did not know yet
        for nack in frame.nacks:
            self.nacks.append(nack)
            _, _, request = self.held.pop(nack.ledger_id)
            request.excluded_backends.append(nack.backend_id)
            request.attempts += 1
            self.queue.insert(0, request)
        for settle in frame.settles:
            self.settles.append(settle)
            self.held.pop(settle.ledger_id, None)
            if self.confirms:
                out.settled.append(settle.ledger_id)
        self.progress.extend(frame.progress)
        self.first_tokens.extend(frame.first_tokens)
        self.byes += frame.bye

    def _dispatch(self, out: scheduler_pb2.SchedulerFrame) -> None:
        for request in list(self.queue):
            refusal = self.rejects.get(request.model, self.reject_with)
            if refusal is not None:
                self.queue.remove(request)
                reject = scheduler_pb2.Reject()
                reject.CopyFrom(refusal)
                reject.ledger_id = request.ledger_id
                out.rejects.append(reject)
                continue
            serving = [b for b in self.slots if request.model in self.serves.get(b, {request.model})]
            eligible = [b for b in serving if b not in request.excluded_backends]
            if not eligible:
                self.queue.remove(request)
                out.rejects.append(
                    scheduler_pb2.Reject(
                        ledger_id=request.ledger_id, reason="engine_failed", message="Every backend was tried."
                    )
                )
                continue
            used = self.used()
            backend = next((b for b in eligible if used[b] + request.width <= self.slots[b]), None)
            if backend is None:
                continue
            self.queue.remove(request)
            self._leases += 1
            self.held[request.ledger_id] = (backend, self._leases, request)
            out.grants.append(
                scheduler_pb2.Grant(
                    ledger_id=request.ledger_id,
                    backend_id=backend,
                    lease=self._leases,
                    attempt=request.attempts + 1,
                    width=request.width,
                    queue_ms=request.age_ms + 1,
                    standing=self.rate,
                )
            )


class EphemeralsDouble:
    """Each id is free once."""

    def __init__(self) -> None:
        self.spent: set[bytes] = set()

    async def Spend(
        self, request: ephemeral_keys_pb2.SpendEphemeralKeyRequest, context: Any
    ) -> ephemeral_keys_pb2.SpendEphemeralKeyResponse:
        was_free = request.id not in self.spent
        self.spent.add(request.id)
        return ephemeral_keys_pb2.SpendEphemeralKeyResponse(was_free=was_free)


Double = (
    AdminDouble | BatchesDouble | ContentDouble | EphemeralsDouble | RegistryDouble | SchedulerDouble | SecurityDouble
)


def add_to(server: grpc.aio.Server, double: Double) -> None:
    """Serves the methods that this double has; the others answer UNIMPLEMENTED."""
    services: dict[type[Double], tuple[type[Any], Callable[[Any, Any], None]]] = {
        AdminDouble: (admin_pb2_grpc.AdminServicer, admin_pb2_grpc.add_AdminServicer_to_server),
        BatchesDouble: (batches_pb2_grpc.BatchesServicer, batches_pb2_grpc.add_BatchesServicer_to_server),
        EphemeralsDouble: (
            ephemeral_keys_pb2_grpc.EphemeralKeysServicer,
            ephemeral_keys_pb2_grpc.add_EphemeralKeysServicer_to_server,
        ),
        SecurityDouble: (security_pb2_grpc.SecurityServicer, security_pb2_grpc.add_SecurityServicer_to_server),
        ContentDouble: (content_pb2_grpc.ContentServicer, content_pb2_grpc.add_ContentServicer_to_server),
        RegistryDouble: (registry_pb2_grpc.RegistryServicer, registry_pb2_grpc.add_RegistryServicer_to_server),
        SchedulerDouble: (scheduler_pb2_grpc.SchedulerServicer, scheduler_pb2_grpc.add_SchedulerServicer_to_server),
    }
    servicer, add = services[type(double)]
    methods = {name: getattr(double, name, getattr(servicer, name)) for name in vars(servicer) if name[0].isupper()}
    add(SimpleNamespace(**methods), server)
    if isinstance(double, AdminDouble):
        add_to(server, double.contents)
        add_to(server, double.batches)
        add_to(server, double.ephemerals)
        add_to(server, double.security)
