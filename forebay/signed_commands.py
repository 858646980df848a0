"""Commands to agents, signed: one ed25519 key of the registry's, which agents know the public half of.

The key is for nothing else. That of the bus would not do: whoever runs the bus chooses what is signed with it."""

from __future__ import annotations

import secrets
from pathlib import Path

from forebay.config import read_secret
from forebay.errors import CannotStart, ForebayError
from forebay.signing_keys import parse_line, to_line
from forebay.wire.v1.commands_pb2 import NodeCommand, SignedCommand

_PURPOSE = b"forebay.command.v1\n"
_SEED_BYTES = 32


class NotSigned(ForebayError):
    """This command was not signed by the registry that this node belongs to."""


class CommandKey:
    """The secret half. nacl is loaded when it is made: only some services sign."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes."""
        from nacl.signing import SigningKey

        self._key = SigningKey(seed)

    @classmethod
    def from_file(cls, file: Path) -> CommandKey:
        """The file holds 64 hexadecimal digits (`openssl rand -hex 32`). Raises CannotStart."""
        try:
            seed = bytes.fromhex(read_secret(file).decode())
        except ValueError:
            seed = b""
        if len(seed) != _SEED_BYTES:
            raise CannotStart(f"{file} must hold 32 random bytes in hexadecimal: openssl rand -hex 32 > {file}")
        return cls(seed)

    @classmethod
    def new(cls) -> CommandKey:
        return cls(secrets.token_bytes(_SEED_BYTES))

    @property
    def public_line(self) -> str:
        """As OpenSSH writes it: what an agent is told."""
        return to_line(bytes(self._key.verify_key))

    def sign(self, command: NodeCommand) -> SignedCommand:
        told = command.SerializeToString()
        return SignedCommand(command=told, signature=self._key.sign(_PURPOSE + told).signature)


class CommandCheck:
    """The public half: whether a command came from the registry."""

    def __init__(self, public_line: str) -> None:
        """Raises ValueError for what is no `ssh-ed25519 …`."""
        from nacl.signing import VerifyKey

        self._key = VerifyKey(parse_line(public_line).public_key)

    def open(self, signed: SignedCommand) -> NodeCommand:
        """The command. Raises NotSigned, and google.protobuf's DecodeError for signed bytes that are none."""
        from nacl.exceptions import BadSignatureError

        try:
            self._key.verify(_PURPOSE + signed.command, signed.signature)
        except (BadSignatureError, ValueError) as error:  # ValueError: a signature of another length
            raise NotSigned from error
        return NodeCommand.FromString(signed.command)
