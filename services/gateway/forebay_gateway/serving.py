"""What every request is served with: the gateway's parts, handed on together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from forebay.clock import Clock
from forebay.sealed import Seal
from forebay.traces.spans import Traces
from forebay_gateway.admin_http import AdminHttp
from forebay_gateway.attempt_news import AttemptNews
from forebay_gateway.callers.delegates import Delegates
from forebay_gateway.callers.ephemeral import EphemeralKeys
from forebay_gateway.callers.ephemeral_spending import EphemeralSpending
from forebay_gateway.callers.guard import Guard
from forebay_gateway.callers.principals import Principals
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoints
from forebay_gateway.config import GatewaySettings
from forebay_gateway.fleet import Fleet
from forebay_gateway.held_body import BodyBudget
from forebay_gateway.keeping.afterwork import Afterwork
from forebay_gateway.keeping.batches import BatchStore
from forebay_gateway.keeping.contents import ContentStore
from forebay_gateway.keeping.named_files import NamedFiles
from forebay_gateway.ledger.estimate import TokenRatios
from forebay_gateway.ledger.journal import Journal
from forebay_gateway.ledger.usage_record import RecordForm
from forebay_gateway.meters import Meters
from forebay_gateway.pictures import Pictures
from forebay_gateway.public_web import PublicWeb
from forebay_gateway.recordings.recorder import Recorder
from forebay_gateway.rules.first_tokens import FirstTokens
from forebay_gateway.rules.model_rules import ModelRules
from forebay_gateway.running import Running
from forebay_gateway.slots.asking import Slots
from forebay_gateway.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Means:
    """What every request is served with."""

    settings: GatewaySettings
    clock: Clock
    principals: Principals
    guard: Guard
    delegates: Delegates
    ephemerals: EphemeralKeys
    spending: EphemeralSpending
    endpoints: VirtualEndpoints
    fleet: Fleet
    model_rules: ModelRules
    slots: Slots
    upstream: Upstream
    journal: Journal
    form: RecordForm
    ratios: TokenRatios
    first_tokens: FirstTokens
    bodies: BodyBudget
    pictures: Pictures
    named_files: NamedFiles
    public_web: PublicWeb
    running: Running
    meters: Meters
    attempt_news: AttemptNews
    recorder: Recorder
    contents: ContentStore
    batches: BatchStore
    admin_http: AdminHttp
    thoughts: Seal
    """Conceals what models thought; all gateways have the same."""
    afterwork: Afterwork
    is_draining: asyncio.Event
    traces: Traces | None = None
    """None: nothing is traced."""
