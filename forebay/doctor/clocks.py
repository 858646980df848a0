"""Whether clocks agree. Fences, leases and budgets end by time; a service whose clock is wrong ends them early or late."""

from __future__ import annotations

from forebay.doctor.finding import Finding, Grade

APART_S = 1.0
FAR_APART_S = 5.0
_AREA = "clocks"


def judge_synchronised(is_synchronised: bool | None) -> Finding:
    """By the kernel, which a time service tells; None where it does not say."""
    if is_synchronised is None:
        return Finding(_AREA, "this machine", Grade.UNKNOWN, "the kernel does not say whether its clock is kept right")
    if not is_synchronised:
        return Finding(
            _AREA, "this machine", Grade.WARN, "nothing keeps this clock right", "Run chrony or systemd-timesyncd here."
        )
    return Finding(_AREA, "this machine", Grade.OK, "kept right by a time service")


def judge_skew(who: str, ahead_s: float, uncertain_s: float) -> Finding:
    """How far another's clock is ahead of ours, give or take what the asking took."""
    apart_s = max(0.0, abs(ahead_s) - uncertain_s)
    found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s >= 0 else 'behind'} this machine (± {uncertain_s:.1f} s)"
    if apart_s >= FAR_APART_S:
        return Finding(
            _AREA, who, Grade.FAIL, found, "Set both clocks by the same time service: leases and budgets end by them."
        )
    if apart_s >= APART_S:
        return Finding(_AREA, who, Grade.WARN, found, "Set both clocks by the same time service.")
    return Finding(_AREA, who, Grade.OK, found)
