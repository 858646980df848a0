"""What a key without the right to manage models may not say to Ollama's engines, which it shares with others. Pure.

It is left out, and the answer is the same: libraries and chat pages send such words without being asked to, and would not
understand a refusal. What operators' rules say comes afterwards and is not touched."""

from __future__ import annotations

from forebay_gateway.canonical.dialect import Json
from forebay_gateway.dialects.ollama.ruled import seconds_of
from forebay_gateway.rules.ruled_fields import demand_exact

LEAST_KEEP_ALIVE_S = 60
"""Less is as good as unloading the model at once."""
LONGEST_KEEP_ALIVE_S = 86_400
"""Longer is as good as for ever."""
# With a change of these Ollama loads the model anew, and who asks with others waits for it. `num_ctx` is one of them too;
# clients need it, and rules limit it.
_RUNNERS_OPTIONS = frozenset(
    (
        "num_gpu",
        "main_gpu",
        "num_thread",
        "num_batch",
        "use_mmap",
        "use_mlock",
        "numa",
        "low_vram",
        "f16_kv",
        "vocab_only",
        "logits_all",
    )
)


def within_rights(body: Json, *, is_limited: bool) -> Json:
    """The same object when nothing is left out. `is_limited`: a rule limits how long models stay loaded, which then also
    holds for those that are to stay for ever. Raises BadField for a name that Ollama would read as one of these."""
    demand_exact(body, ("keep_alive", "options"))
    options = body.get("options")
    if isinstance(options, dict) and not _RUNNERS_OPTIONS.isdisjoint(options):
        own = {name: value for name, value in options.items() if name not in _RUNNERS_OPTIONS}
        body = {**body, "options": own}
    seconds = seconds_of(body.get("keep_alive"))
    is_too_long = seconds > LONGEST_KEEP_ALIVE_S and not is_limited
    if "keep_alive" in body and (seconds < LEAST_KEEP_ALIVE_S or is_too_long):
        body = {name: value for name, value in body.items() if name != "keep_alive"}
    return body
