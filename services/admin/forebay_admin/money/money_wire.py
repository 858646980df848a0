"""Prices and balances as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from forebay.wire.v1 import prices_pb2
from forebay_admin.audit.audit_store import Facts
from forebay_admin.money.balances import Balance, Posting
from forebay_admin.money.prices import Hardware, Prices, PriceVersion, Tier
from forebay_admin.wire_forms import moment_us


def prices_from(terms: prices_pb2.PriceTerms) -> Prices:
    return Prices(
        prompt_micros=terms.prompt_micros,
        cached_prompt_micros=_cached(terms),
        completion_micros=terms.completion_micros,
        request_micros=terms.request_micros,
        image_micros=terms.image_micros,
        audio_second_micros=terms.audio_second_micros,
        tiers=tuple(
            Tier(tier.from_prompt_tokens, tier.prompt_micros, _cached(tier), tier.completion_micros)
            for tier in terms.tiers
        ),
        hardware=_hardware(terms.hardware) if terms.HasField("hardware") else None,
    )


def price_to_wire(version: PriceVersion, in_force: bool) -> prices_pb2.PriceVersion:
    return prices_pb2.PriceVersion(
        id=str(version.id),
        model=version.model,
        starts_at_us=moment_us(version.starts_at),
        terms=terms_to_wire(version.prices) if version.prices is not None else None,
        created_by=version.created_by,
        created_at_us=moment_us(version.created_at),
        in_force=in_force,
    )


def price_facts(version: PriceVersion) -> Facts:
    """As the audit log has it."""
    facts: dict[str, str | int | bool | list[str] | None] = {
        "id": version.id,
        "starts_at": version.starts_at.isoformat(),
    }
    prices = version.prices
    if prices is None:
        return {**facts, "prices": None}
    plain = ("prompt_micros", "cached_prompt_micros", "completion_micros", "request_micros", "image_micros")
    facts |= {name: getattr(prices, name) for name in (*plain, "audio_second_micros")}
    facts["tiers"] = [
        f"from {tier.from_prompt_tokens}: {tier.prompt_micros} {tier.cached_prompt_micros} {tier.completion_micros}"
        for tier in prices.tiers
    ]
    if prices.hardware is not None:
        names = ("gpus", "shared_by", "gpu_watts", "gpu_hour_micros", "kwh_micros")
        facts |= {name: getattr(prices.hardware, name) for name in names}
    return facts


def balance_to_wire(balance: Balance) -> prices_pb2.Balance:
    account = balance.account
    return prices_pb2.Balance(
        id=account.id,
        kind=account.kind,
        name=account.name,
        paid_micros=balance.paid_micros,
        charged_micros=balance.charged_micros,
        left_micros=balance.left_micros,
        requests=balance.requests,
        opened_by=account.created_by,
        opened_at_us=moment_us(account.opened_at),
        closed_at_us=moment_us(account.closed_at) if account.closed_at is not None else None,
    )


def posting_to_wire(posting: Posting) -> prices_pb2.BalancePosting:
    return prices_pb2.BalancePosting(
        id=posting.id,
        kind=posting.kind.value,
        amount_micros=posting.amount_micros,
        reference=posting.reference,
        note=posting.note,
        created_by=posting.created_by,
        at_us=moment_us(posting.at),
    )


def charge_to_wire(hour: datetime, requests: int, cost_micros: int) -> prices_pb2.BalanceCharge:
    return prices_pb2.BalanceCharge(hour_us=moment_us(hour), requests=requests, cost_micros=cost_micros)


def terms_to_wire(prices: Prices) -> prices_pb2.PriceTerms:
    hardware = prices.hardware
    return prices_pb2.PriceTerms(
        prompt_micros=prices.prompt_micros,
        cached_prompt_micros=prices.cached_prompt_micros,
        completion_micros=prices.completion_micros,
        request_micros=prices.request_micros,
        image_micros=prices.image_micros,
        audio_second_micros=prices.audio_second_micros,
        tiers=[
            prices_pb2.PriceTier(
                from_prompt_tokens=tier.from_prompt_tokens,
                prompt_micros=tier.prompt_micros,
                cached_prompt_micros=tier.cached_prompt_micros,
                completion_micros=tier.completion_micros,
            )
            for tier in prices.tiers
        ],
        hardware=prices_pb2.HardwarePrice(
            gpus=hardware.gpus,
            shared_by=hardware.shared_by,
            gpu_watts=hardware.gpu_watts,
            gpu_hour_micros=hardware.gpu_hour_micros,
            kwh_micros=hardware.kwh_micros,
        )
        if hardware is not None
        else None,
    )


def _hardware(price: prices_pb2.HardwarePrice) -> Hardware:
    return Hardware(price.gpus or 1, price.shared_by or 1, price.gpu_watts, price.gpu_hour_micros, price.kwh_micros)


def _cached(said: Any) -> int:
    cached: int = said.cached_prompt_micros if said.HasField("cached_prompt_micros") else said.prompt_micros
    return cached
