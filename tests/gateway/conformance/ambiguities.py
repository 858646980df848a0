"""What can be understood in more than one way, or in none: heads, lengths, chunks and first lines, each by its name."""

from __future__ import annotations

import json

from tests.gateway.conformance.pair import said
from tests.gateway.conformance.wire import chunked

CHAT = b"/v1/chat/completions"
BODY = json.dumps(said(user="framed")).encode()
N = len(BODY)
CL = b"content-length: %d" % N
TE = b"transfer-encoding: chunked"
CHUNKS = chunked(BODY)
FRAMED_TWICE: dict[str, tuple[list[bytes], bytes]] = {
    "length, then chunks": ([CL, TE], CHUNKS),
    "chunks, then length": ([TE, CL], CHUNKS),
    "length 0, then chunks": ([b"content-length: 0", TE], CHUNKS),
    "length of the chunks": ([b"content-length: %d" % len(CHUNKS), TE], CHUNKS),
    "length, and chunks of odd case": ([CL, b"Transfer-Encoding: CHUNKED"], CHUNKS),
    "length, and chunks that are none": ([CL, b"transfer-encoding: xchunked"], BODY),
    "length, and identity": ([CL, b"transfer-encoding: identity"], BODY),
    "length, and an empty coding": ([CL, b"transfer-encoding:"], BODY),
    "two lengths": ([CL, b"content-length: 5"], BODY),
    "two lengths the other way": ([b"content-length: 5", CL], BODY),
    "the same length twice": ([CL, CL], BODY),
    "the same length twice in one": ([b"content-length: %d, %d" % (N, N)], BODY),
    "two lengths in one": ([b"content-length: 5, %d" % N], BODY),
    "chunks twice": ([TE, TE], CHUNKS),
    "chunks and identity": ([TE, b"transfer-encoding: identity"], CHUNKS),
}
LENGTHS = {
    "a plus": b"+%d" % N,
    "a minus": b"-%d" % N,
    "a minus nothing": b"-0",
    "a blank inside": b"1 0",
    "a comma": b"%d," % N,
    "a comma before": b",%d" % N,
    "hexadecimal": b"0x%x" % N,
    "an exponent": b"1e2",
    "an underscore": b"1_0",
    "a point": b"%d.0" % N,
    "nothing": b"",
    "blanks": b"   ",
    "letters": b"ten",
    "letters behind": b"%dabc" % N,
    "a quote": b'"%d"' % N,
    "more than 64 bits hold": b"18446744073709551626",
    "a thousand digits": b"1" * 1000,
    "another script's digits": "١٠".encode(),
    "a vertical tab": b"\x0b%d" % N,
    "a NUL": b"%d\x00" % N,
    "a semicolon": b"%d;a=b" % N,
}
CODINGS = {
    "another word": b"transfer-encoding: xchunked",
    "chunks first": b"transfer-encoding: chunked, identity",
    "identity": b"transfer-encoding: identity",
    "chunks twice": b"transfer-encoding: chunked, chunked",
    "gzip last": b"transfer-encoding: chunked, gzip",
    "a vertical tab": b"transfer-encoding: \x0bchunked",
    "a form feed": b"transfer-encoding: chunked\x0c",
    "a NUL": b"transfer-encoding: chunked\x00",
    "a quote": b'transfer-encoding: "chunked"',
    "a parameter": b"transfer-encoding: chunked;a=b",
    "a blank before the colon": b"transfer-encoding : chunked",
    "a tab before the colon": b"transfer-encoding\t: chunked",
    "a blank before the name": b" transfer-encoding: chunked",
    "folded": b"transfer-encoding:\r\n chunked",
    "folded by a tab": b"transfer-encoding:\r\n\tchunked",
    "an end of line inside": b"transfer-encoding: chun\nked",
    "nothing": b"transfer-encoding:",
    "a comma": b"transfer-encoding: ,",
}
BAD_LINES: dict[str, list[bytes]] = {
    "folded": [b"x-a: b", b" content-length: 5"],
    "folded by a tab": [b"x-a: b", b"\tc"],
    "no colon": [b"content-length"],
    "no name": [b": 5"],
    "a blank before the colon": [b"x-a : b"],
    "a tab before the colon": [b"x-a\t: b"],
    "a blank in the name": [b"x a: b"],
    "a NUL in the name": [b"x\x00a: b"],
    "a NUL in the value": [b"x-a: b\x00c"],
    "a control in the name": [b"x\x01a: b"],
    "a control in the value": [b"x-a: b\x01c"],
    "a delete in the value": [b"x-a: b\x7fc"],
    "a backspace in the value": [b"x-a: b\x08"],
    "bytes that are no ASCII in the name": ["größe: 5".encode()],
    "a bracket in the name": [b"(x): b"],
    "a bare CR in the value": [b"x-a: b\rcontent-length: 5"],
    "a bare CR at the end": [b"x-a: b\r"],
    "a bare LF in the value": [b"x-a: b\ncontent-length: 5"],
    "a bare CR in the name": [b"x\r-a: b"],
    "a second host": [b"host: y"],
}
FIRST_LINES = {
    "a tab": b"POST\t%s HTTP/1.1" % CHAT,
    "a tab behind": b"POST %s\tHTTP/1.1" % CHAT,
    "a blank before": b" POST %s HTTP/1.1" % CHAT,
    "a blank at the end": b"POST %s HTTP/1.1 " % CHAT,
    "a blank in the address": b"POST %s /x HTTP/1.1" % CHAT,
    "a NUL in the address": b"POST %s\x00 HTTP/1.1" % CHAT,
    "a control in the address": b"POST %s\x01 HTTP/1.1" % CHAT,
    "HTTP/1.2": b"POST %s HTTP/1.2" % CHAT,
    "HTTP/2.0": b"POST %s HTTP/2.0" % CHAT,
    "HTTP/1.10": b"POST %s HTTP/1.10" % CHAT,
    "HTTP/01.1": b"POST %s HTTP/01.1" % CHAT,
    "http/1.1": b"POST %s http/1.1" % CHAT,
    "HTTP/": b"POST %s HTTP/" % CHAT,
    "no version": b"POST %s" % CHAT,
    "no address": b"POST HTTP/1.1",
    "a method in small letters": b"post %s HTTP/1.1" % CHAT,
    "a method that is none": b"PO(ST %s HTTP/1.1" % CHAT,
    "a bare CR": b"POST %s HTTP/1.1\rx-a: b" % CHAT,
    "nothing": b"",
}
LINE_ENDS = {
    "LF everywhere": [(b"\r\n", b"\n")],
    "LF behind the first line": [(b"HTTP/1.1\r\n", b"HTTP/1.1\n")],
    "LF behind a header": [(b"host: x\r\n", b"host: x\n")],
    "LF at the end of the head": [(b"\r\n\r\n", b"\n\n")],
    "LF in the middle of the end": [(b"\r\n\r\n", b"\r\n\n")],
    "CR everywhere": [(b"\r\n", b"\r")],
    "CR CR LF": [(b"host: x\r\n", b"host: x\r\r\n")],
    "LF CR": [(b"host: x\r\n", b"host: x\n\r")],
}
BAD_CHUNKS = {
    "a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a blank before": b" 5\r\nhello\r\n0\r\n\r\n",
    "an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no size but an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "letters": b"five\r\nhello\r\n0\r\n\r\n",
    "more than 64 bits hold": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a hundred digits": b"5" * 100 + b"\r\nhello\r\n0\r\n\r\n",
    "LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "LF behind the bytes": b"5\r\nhello\n0\r\n\r\n",
    "nothing behind the bytes": b"5\r\nhello0\r\n\r\n",
    "a byte too many": b"5\r\nhello!\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
    "LF at the end": b"5\r\nhello\r\n0\n\n",
    "a NUL in the size": b"5\x00\r\nhello\r\n0\r\n\r\n",
}
NO_HTTP = {
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)) + b"\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "SMTP": b"EHLO x\r\nMAIL FROM:<a@b>\r\n\r\n",
    "a proxy's words": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "NULs": bytes(64) + b"\r\n\r\n",
    "JSON": b'{"model": "fake-model"}\r\n\r\n',
}
SURPLUS = {
    "an answer": b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"not":"you"}',
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-le",
    "a byte": b"x",
    "an end of a line": b"\r\n",
}
