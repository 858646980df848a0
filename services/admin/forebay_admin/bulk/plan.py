"""What a file would do, as one short word: whoever confirms it confirms that, and nothing that came after. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from forebay.errors import NotPossible
from forebay_admin.bulk.key_lines import KeyLine
from forebay_admin.bulk.sheet import MOST_TOLD, Flaw
from forebay_admin.bulk.user_lines import UserLine


def digest_of_users(lines: Iterable[UserLine], new_groups: Sequence[str]) -> str:
    rows = ((line.number, line.order.name, line.order.group, line.order.role.value) for line in lines)
    return _digest("users", [(0, new_groups), *rows])


def digest_of_keys(lines: Iterable[KeyLine]) -> str:
    return _digest("keys", [_key_row(line) for line in lines])


def demand_same(shown: str, found: str) -> None:
    """Raises NotPossible."""
    if shown != found:
        raise NotPossible(
            "This is not the plan that was shown: the file or what there is has changed since. Nothing was done; "
            "look at the plan again."
        )


def first_flaws(flaws: Iterable[Flaw]) -> list[Flaw]:
    """As many as are told, in the order of the file; the last then says how many there are."""
    found = sorted(flaws, key=lambda flaw: flaw.line)
    if len(found) <= MOST_TOLD:
        return found
    more = len(found) - MOST_TOLD + 1
    return [*found[: MOST_TOLD - 1], Flaw(found[MOST_TOLD - 1].line, "", f"{more:,} more problems, from this line on.")]


def _key_row(line: KeyLine) -> Sequence[object]:
    order, limits, terms = line.order, line.order.limits, line.order.limits.terms
    return (
        *(line.number, order.user, order.name, order.description, sorted(order.labels.items())),
        *(limits.allowed_models, limits.band_cap.value, limits.pool),
        line.expires_in_s if line.expires_in_s is not None else _moment(limits.expires_at),
        *(terms.denied_models, terms.other_pools, terms.addresses, terms.calls),
        *(terms.max_output_tokens, terms.max_context_tokens, terms.audit.value if terms.audit is not None else None),
    )


def _moment(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


def _digest(what: str, rows: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps([what, rows], ensure_ascii=False).encode()).hexdigest()
