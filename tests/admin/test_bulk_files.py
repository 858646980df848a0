"""Files of users and keys: what a line orders, and what is wrong with one, each with its line and column."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from forebay.errors import BadInput, NotPossible
from forebay_admin.bulk.key_lines import read_keys
from forebay_admin.bulk.plan import demand_same, digest_of_keys, digest_of_users, first_flaws
from forebay_admin.bulk.sheet import MOST_BYTES, MOST_LINES, MOST_TOLD, Flaw, decoded
from forebay_admin.bulk.user_lines import UserLine, read_users
from forebay_admin.keys.keys import Band
from forebay_admin.people.people import Role, UserOrder
from forebay_admin.row_files import FORMULA, Column, Kind, writer_of

NOW = datetime(2026, 11, 30, tzinfo=UTC)

USERS = "name,group,role\nalice,faculty,admin\nbob,,\n"
KEYS = (
    "user,name,allowed_models,band_cap,pool,other_pools,addresses,expires_in_days,max_output_tokens,audit,labels,description\n"
    'alice,laptop,llama*; qwen*,batch,day,night,10.0.0.7,30,2000,off,team=core;env=x,"a, b"\n'
)


@pytest.mark.parametrize(
    "text",
    [
        USERS,
        "\ufeff" + USERS.replace("\n", "\r\n"),
        USERS.replace("\n", "\r"),
        USERS.removesuffix("\n"),
        ' Name ,GROUP,role\n\n"alice" , faculty ,ADMIN\n,,\n"bob","",""\n',
    ],
    ids=["plain", "byte-order-mark", "old-macs", "no-last-end", "blanks-and-quotes"],
)
def test_a_file_is_read_however_it_was_written(text: str) -> None:
    file = read_users(text.replace('"alice" ', '"alice"'))
    assert not file.flaws
    assert [line.order for line in file.lines] == [
        UserOrder("alice", "faculty", Role.ADMIN),
        UserOrder("bob", "everyone", Role.MEMBER),
    ]


def test_a_key_is_ordered_with_all_that_it_is_held_to() -> None:
    (line,) = read_keys(KEYS, NOW).lines
    order, terms = line.order, line.order.limits.terms
    assert (line.number, order.user, order.name, order.description) == (2, "alice", "laptop", "a, b")
    assert order.limits.allowed_models == ("llama*", "qwen*")
    assert (order.limits.band_cap, order.limits.pool, terms.other_pools) == (Band.BATCH, "day", ("night",))
    assert order.limits.expires_at == NOW + timedelta(days=30)
    assert (terms.addresses, terms.max_output_tokens, terms.audit) == (("10.0.0.7/32",), 2000, "off")
    assert order.labels == {"team": "core", "env": "x"}


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("", "", "The file is empty; its first line names the columns: name, group, role."),
        ("name\n", "", "The file has no lines below"),
        ("name,role,name\na,,\n", "1.name", "This column stands here twice."),
        ("name,rol\na,\n", "1.rol", "'rol' is not known here; did you mean role?"),
        ("name,\na,b\n", "1", "Column 2 has no name."),
        ("group,role\na,\n", "1.name", "There is no column name."),
        ("name;role\na;admin\n", "1", "The columns are not told apart by commas"),
        ("name\tgroup\na\tb\n", "1", "The columns are not told apart by commas"),
        ("name,role\na\n", "2", "This line has 1 cells, and the first names 2 columns."),
        ('name\n"a\nb"c\n', "2", "From here on this is no CSV"),
        ('name\n"a\n', "2", "From here on this is no CSV"),
        ("name,role\n,admin\n", "2.name", "This cell is empty."),
        ("name,role\na,boss\n", "2.role", "There is no role 'boss'; there are member, auditor, operator, admin."),
        ("name\n\n\ntwo words\n", "4.name", "A user's name is 1 to 64 letters"),
        ('name,role\n"a\nb",admin\n', "2.name", "A user's name is 1 to 64 letters"),
        ("name\na\nb\nA\n", "4.name", "A stands on line 2 already."),
        *((f"name\n{sign}cmd\n", "2.name", f"'{sign}cmd' begins as a formula does") for sign in "=+-@＝"),
        ("name,group\na,=1\n", "2.group", "'=1' begins as a formula does"),
        ("name\n" + "x" * 140_000, "2", "From here on this is no CSV"),
    ],
)
def test_what_is_wrong_with_users_is_told_with_its_place(text: str, path: str, why: str) -> None:
    (flaw,) = read_users(text).flaws
    assert flaw.path == path
    assert flaw.why.startswith(why)


@pytest.mark.parametrize(
    ("header", "cells", "path", "why"),
    [
        ("user,name", "a,=HYPERLINK(1)", "2.name", "'=HYPERLINK(1)' begins as a formula does"),
        ("user,name,description", "a,b,@x", "2.description", "'@x' begins as a formula does"),
        ("user,name,labels", "a,b,x=1;y", "2.labels", "'y' is no label: write NAME=VALUE."),
        ("user,name,expires_in_days", "a,b,0", "2.expires_in_days", "A key that expires in 0 seconds"),
        ("user,name,expires_in_days", "a,b,-1", "2.expires_in_days", "'-1' is not a whole number"),
        ("user,name,expires_in_days", "a,b,36501", "2.expires_in_days", "'36501' is not a whole number up to 36,500."),
        ("user,name,max_output_tokens", "a,b,0", "2.max_output_tokens", "A key whose answer may have 0 tokens"),
        ("user,name,addresses", "a,b,10.0.0.1/8", "2.addresses", "10.0.0.1/8 has bits beyond its prefix"),
        ("user,name,calls", "a,b,chat;dance", "2.calls", "There is no call 'dance'"),
        ("user,name,audit", "a,b,some", "2.audit", "There is no audit policy 'some'"),
        ("user,name,band_cap", "a,b,slow", "2.band_cap", "There is no band 'slow'"),
        ("user,name,other_pools", "a,b,night", "2.other_pools", "A key that may go to other pools"),
        ("user,name,pool,other_pools", "a,b,day,day", "2.other_pools", "The pool day is the key's own"),
        ("user,name", "a,b\nA,B", "3.name", "A gets a key B on line 2 already."),
    ],
)
def test_what_is_wrong_with_keys_is_told_with_its_place(header: str, cells: str, path: str, why: str) -> None:
    (flaw,) = read_keys(f"{header}\n{cells}\n", NOW).flaws
    assert flaw.path == path
    assert flaw.why.startswith(why)


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    flaws = read_users("name,role\na,boss\n,admin\nb\n").flaws
    assert [flaw.path for flaw in first_flaws(flaws)] == ["2.role", "3.name", "4"]
    many = [Flaw(number, "name", "x") for number in range(2, 302)]
    told = first_flaws(reversed(many))
    assert len(told) == MOST_TOLD
    assert (told[0], told[-1].why) == (many[0], "201 more problems, from this line on.")


def test_a_file_has_at_most_so_many_lines() -> None:
    most = "name\n" + "".join(f"user-{number}\n" for number in range(MOST_LINES))
    assert not read_users(most).flaws
    (flaw,) = read_users(f"{most}one-more\n").flaws
    assert flaw.path == "2002"
    assert flaw.why.startswith("A file has at most 2,000 lines")


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    assert decoded("name\nå".encode()) == "name\nå"
    for content, why in (
        ("name\nå".encode("latin-1"), "Line 2 is not UTF-8"),
        ("name".encode("utf-16"), "The file is UTF-16"),
        (b"name\na\nb\0\n", "Line 3 holds a NUL character"),
        (b"x" * (MOST_BYTES + 1), "The file is larger than 4 MB"),
    ):
        with pytest.raises(BadInput, match=why):
            decoded(content)


def test_another_plan_has_another_digest() -> None:
    plain = UserLine(2, UserOrder("alice", "everyone", Role.MEMBER))
    boss = UserLine(2, UserOrder("alice", "everyone", Role.ADMIN))
    digests = {digest_of_users([plain], ()), digest_of_users([boss], ()), digest_of_users([plain], ["everyone"])}
    digests |= {digest_of_keys(read_keys(text, NOW).lines) for text in (KEYS, KEYS.replace("2000", "2001"))}
    assert len(digests) == 5
    later = read_keys(KEYS, NOW + timedelta(minutes=5)).lines
    assert digest_of_keys(later) == digest_of_keys(read_keys(KEYS, NOW).lines)
    with pytest.raises(NotPossible):
        demand_same("one", "another")


def test_what_we_write_is_no_formula_either() -> None:
    texts = [f"{sign}1+1" for sign in FORMULA] + ["a=1", "", '"=1"', "x,=1", "x\n=1"]
    file = io.BytesIO()
    writer = writer_of("csv", file, (Column("name", Kind.TEXT), Column("tokens", Kind.WHOLE)))
    for text in texts:
        writer.write({"name": text, "tokens": -1})
    writer.close()
    rows = list(csv.reader(io.StringIO(file.getvalue().decode(), newline="")))[1:]
    assert not any(name.startswith(FORMULA) for name, _ in rows)
    assert [name.removeprefix("'") for name, _ in rows] == texts
    assert {tokens for _, tokens in rows} == {"-1"}  # a number, as it is


def test_what_anybody_may_send_is_told_of_in_bounds() -> None:
    """However many columns there are, and however many lines that do not fit: each counts."""
    (flaw,) = read_keys("a," * 1_000_000 + "\n", NOW).flaws
    assert (flaw.line, "1,000,001 columns" in flaw.why) == (1, True)
    flaws = read_users("name,group\n" + "x\n" * (MOST_LINES + 100_000)).flaws
    assert (len(flaws), flaws[-1].line) == (MOST_LINES + 1, MOST_LINES + 2)
    assert "divide it" in flaws[-1].why
    assert len(read_users(f"{'n' * 100_000}\nx\n").flaws[0].why) < 500
