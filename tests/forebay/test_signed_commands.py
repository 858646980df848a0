"""Commands to agents are taken from the registry alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from forebay.errors import CannotStart
from forebay.signed_commands import CommandCheck, CommandKey, NotSigned
from forebay.wire.v1.commands_pb2 import NodeCommand, SignedCommand

COMMAND = NodeCommand(id="one", node="gpu-1", actor="ada")


def test_a_command_is_opened_by_whoever_knows_the_public_half_and_signed_by_nobody_else() -> None:
    key = CommandKey.new()
    check = CommandCheck(key.public_line)
    signed = key.sign(COMMAND)
    assert check.open(signed) == COMMAND
    for forged in (
        CommandKey.new().sign(COMMAND),
        SignedCommand(command=signed.command),
        SignedCommand(command=signed.command, signature=bytes(64)),
        SignedCommand(command=signed.command + b" ", signature=signed.signature),
        SignedCommand(),
    ):
        with pytest.raises(NotSigned):
            check.open(forged)


def test_a_signature_of_the_same_key_over_something_else_is_none() -> None:
    from nacl.signing import SigningKey

    told = COMMAND.SerializeToString()
    signature = SigningKey(bytes(32)).sign(told).signature
    with pytest.raises(NotSigned):
        CommandCheck(CommandKey(bytes(32)).public_line).open(SignedCommand(command=told, signature=signature))


def test_signed_bytes_that_are_no_command_are_told_apart() -> None:
    from nacl.signing import SigningKey

    nonsense = b"\xff\xff"
    signature = SigningKey(bytes(32)).sign(b"forebay.command.v1\n" + nonsense).signature
    with pytest.raises(DecodeError):
        CommandCheck(CommandKey(bytes(32)).public_line).open(SignedCommand(command=nonsense, signature=signature))


def test_a_key_is_a_file_with_64_digits(tmp_path: Path) -> None:
    file = tmp_path / "command.key"
    file.write_text("00" * 32 + "\n")
    assert CommandKey.from_file(file).public_line == CommandKey(bytes(32)).public_line
    for text in ("00" * 31, "zz" * 32, "SUAAAA"):
        file.write_text(text)
        with pytest.raises(CannotStart, match="openssl rand -hex 32"):
            CommandKey.from_file(file)
