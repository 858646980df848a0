"""`data:` URLs: bytes that stand in the request itself. Pure."""

from __future__ import annotations

import base64
import re

BASE64_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)
"""How one begins; its group is the media type."""


def as_data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
