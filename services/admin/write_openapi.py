"""Writes the OpenAPI document of the REST API from the messages and their .proto files, and from it the Postman collection:
`make openapi`. With --check it only says whether those that are there are fresh."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from forebay.wire.v1 import admin_pb2
from forebay_admin.rest.openapi import document
from forebay_admin.rest.postman import collection
from forebay_admin.rest.proto_comments import comments_of

_ROOT = Path(__file__).resolve().parents[2]
_PLACE = Path(__file__).resolve().parent / "forebay_admin" / "rest"


def compiled_protos() -> FileDescriptorSet:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "protos.binpb"
        protos = sorted(str(path) for path in (_ROOT / "proto").glob("forebay/wire/v1/*.proto"))
        command = (sys.executable, "-m", "grpc_tools.protoc", f"-I{_ROOT / 'proto'}", "--include_source_info")
        subprocess.run((*command, f"--descriptor_set_out={out}", *protos), check=True)
        return FileDescriptorSet.FromString(out.read_bytes())


def written() -> dict[Path, str]:
    operator = admin_pb2.DESCRIPTOR.services_by_name["Operator"]
    told = document(operator, comments_of(compiled_protos()), version("forebay"))
    return {
        _PLACE / name: json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        for name, content in (("openapi.json", told), ("postman.json", collection(told)))
    }


def main() -> int:
    fresh = written()
    if "--check" not in sys.argv[1:]:
        for path, text in fresh.items():
            path.write_text(text)
        return 0
    stale = [path for path, text in fresh.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        sys.stderr.write(f"{path.relative_to(_ROOT)} is stale: run 'make openapi' and commit the result.\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
