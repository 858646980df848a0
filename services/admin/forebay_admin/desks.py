"""What answers operators, put together from what admin has open."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.clock import Clock
from forebay.database import Database
from forebay.registries import Registries
from forebay.since import Since
from forebay_admin.audit.audit_desk import AuditDesk
from forebay_admin.bulk.bulk_desk import BulkDesk
from forebay_admin.changes import Changes
from forebay_admin.config import AdminSettings
from forebay_admin.fleet.alerts_client import AlertsClient
from forebay_admin.fleet.alerts_desk import AlertsDesk
from forebay_admin.fleet.credential_store import CredentialStore
from forebay_admin.fleet.credentials_desk import CredentialsDesk
from forebay_admin.fleet.fleet_desk import FleetDesk
from forebay_admin.fleet.history_client import HistoryClient
from forebay_admin.fleet.history_desk import HistoryDesk
from forebay_admin.fleet.library_client import LibraryClient
from forebay_admin.fleet.library_desk import LibraryDesk
from forebay_admin.fleet.lifecycle_client import LifecycleClient
from forebay_admin.fleet.lifecycle_desk import LifecycleDesk
from forebay_admin.fleet.node_client import NodeClient
from forebay_admin.fleet.nodes_desk import NodesDesk
from forebay_admin.fleet.parts_desk import FleetPartsDesk
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.fleet.state_desk import FleetStateDesk
from forebay_admin.fleet.status_desk import StatusDesk
from forebay_admin.keys.keys_desk import KeysDesk
from forebay_admin.keys.signing_desk import SigningDesk
from forebay_admin.ledger.cost_desk import CostDesk
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.letters_desk import LettersDesk
from forebay_admin.ledger.usage_desk import UsageDesk
from forebay_admin.models.fallbacks_desk import FallbacksDesk
from forebay_admin.models.model_rules_desk import ModelRulesDesk
from forebay_admin.models.terms_desk import TermsDesk
from forebay_admin.money.balances_desk import BalancesDesk
from forebay_admin.money.price_watch import PriceWatch
from forebay_admin.money.prices_desk import PricesDesk
from forebay_admin.notify.opening import Notifying
from forebay_admin.operator import Desks
from forebay_admin.people.directory import Directory
from forebay_admin.people.people_desk import PeopleDesk
from forebay_admin.people.shares_desk import SharesDesk
from forebay_admin.queue.scheduler_client import SchedulerClient
from forebay_admin.queue.scheduler_desk import SchedulerDesk
from forebay_admin.quotas.members_desk import MembersDesk
from forebay_admin.quotas.quota_desk import QuotaDesk
from forebay_admin.quotas.requests_desk import QuotaRequestsDesk
from forebay_admin.recordings.policy_store import tell_again
from forebay_admin.recordings.recordings_desk import RecordingsDesk
from forebay_admin.security.opening import Security
from forebay_admin.sign_in.access_requests_desk import AccessRequestsDesk
from forebay_admin.sign_in.opening import SignIn


@dataclass(frozen=True, slots=True)
class Means:
    settings: AdminSettings
    clock: Clock
    database: Database
    changes: Changes
    directory: Directory
    pepper: bytes
    credentials: CredentialStore
    registries: Registries
    scheduler: SchedulerClient
    registry: RegistryClient
    own: Since
    prices: PriceWatch
    ledger_store: LedgerStore
    notifying: Notifying
    sign_in: SignIn
    security: Security
    join_url: str
    http_pin: str | None
    """Of admin's own certificate, for whoever joins."""


def make_desks(means: Means) -> Desks:
    database, changes, clock = means.database, means.changes, means.clock
    registry, scheduler = means.registry, means.scheduler
    quotas = QuotaDesk(database, changes, clock)
    keys = KeysDesk(database, changes, means.directory, means.pepper, clock)
    fleet_state = FleetStateDesk(database, changes, means.credentials, registry, clock)
    return Desks(
        keys=keys,
        bulk=BulkDesk(database, changes, means.directory, means.pepper, clock),
        members=MembersDesk(database, changes, clock),
        quota_requests=QuotaRequestsDesk(database, changes, quotas, keys, means.notifying.outbox, clock),
        notify=means.notifying.desk,
        people=PeopleDesk(database, changes, means.directory, means.pepper, clock),
        signing=SigningDesk(database, changes, clock),
        shares=SharesDesk(database, changes, tell_again, clock),
        quotas=quotas,
        terms=TermsDesk(database, changes, registry, clock),
        prices=PricesDesk(database, changes, means.prices, clock),
        balances=BalancesDesk(database, changes, clock),
        usage=UsageDesk(database, clock),
        costs=CostDesk(database, clock),
        letters=LettersDesk(database, means.ledger_store, lambda: means.prices.book, clock),
        model_rules=ModelRulesDesk(database, changes, clock),
        fallbacks=FallbacksDesk(database, changes, clock),
        fleet=FleetDesk(
            database,
            changes,
            means.credentials,
            registry,
            clock,
            join_url=means.join_url,
            http_pin=means.http_pin,
        ),
        fleet_state=fleet_state,
        fleet_parts=FleetPartsDesk(fleet_state),
        credentials=CredentialsDesk(database, changes, means.credentials, registry, clock),
        scheduler=SchedulerDesk(database, scheduler, registry),
        lifecycle=LifecycleDesk(database, LifecycleClient(means.registries.leading), scheduler, clock),
        library=LibraryDesk(database, LibraryClient(means.registries.leading), registry, clock),
        nodes=NodesDesk(database, NodeClient(means.registries.leading), clock),
        history=HistoryDesk(database, HistoryClient(means.registries.leading), clock),
        alerts=AlertsDesk(database, AlertsClient(means.registries.leading), clock),
        status=StatusDesk(
            address=means.settings.listen,
            own=means.own,
            scheduler=scheduler,
            scheduler_addresses=means.settings.scheduler_addresses,
            registry=registry,
            registry_peers=means.registries.each,
            alerts=AlertsClient(means.registries.leading),
            clock=clock,
        ),
        rights=means.sign_in.rights,
        sign_in=means.sign_in.access,
        access_requests=AccessRequestsDesk(
            database,
            changes,
            means.notifying.outbox,
            means.pepper,
            clock,
            reset_url=f"{means.join_url}/sign-in/password",
        ),
        audit=AuditDesk(database),
        recordings=RecordingsDesk(database, changes, clock),
        addresses=means.security.addresses,
        security_events=means.security.events,
    )
