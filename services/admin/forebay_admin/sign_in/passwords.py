"""Which passwords may be chosen. Pure; hashing them is `hashing`'s job.

Long ones, without rules about kinds of characters: those make people write `Password1!`."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta
from itertools import pairwise

from forebay.errors import BadInput

SHORTEST, LONGEST = 12, 256
RESET_LIFE = timedelta(hours=24)
_FEWEST_DIFFERENT = 5
_COMMON = frozenset(
    """
    password passwort motdepasse contraseña letmein letmeinplease welcome iloveyou trustno1 changeme changeit administrator
    qwertyuiop qwertyuiopasdf qwertzuiop asdfghjkl zxcvbnm qazwsxedc qazwsxedcrfv passw0rd p@ssw0rd p@ssword monkeymonkey
    correcthorsebatterystaple superman sunshine princess football baseball dragon abcdefgh abcdefghijkl forebay secret
    whatever whateverwhatever iloveyouforever thisismypassword mypassword nopassword defaultpassword adminadmin adminpassword
    rootroot testtest testpassword guestguest
    """.split()  # noqa: SIM905 - words are easier to read and to add to
)
"""Long enough with a few digits behind them, and the first that are tried."""
_ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")


class BadPassword(BadInput):
    """This password cannot be used."""


def normal(password: str) -> str:
    """The same letters in the same form, whichever keyboard they come from."""
    return unicodedata.normalize("NFC", password)


def demand_good(password: str, user_name: str) -> str:
    """The password as it is hashed. Raises BadPassword, never with the password in it."""
    password = normal(password)
    if len(password) < SHORTEST:
        raise BadPassword(f"A password has at least {SHORTEST} characters; a few words are easy to remember.")
    if len(password) > LONGEST or "\x00" in password:
        raise BadPassword(f"A password has at most {LONGEST} characters, and no zero bytes.")
    plain = password.casefold()
    names = {user_name.casefold(), user_name.partition("@")[0].casefold()}
    if any(name and (plain == name or (len(name) >= 4 and name in plain)) for name in names):
        raise BadPassword("A password does not have the user's name in it.")
    if len(set(plain)) < _FEWEST_DIFFERENT:
        raise BadPassword(f"A password has at least {_FEWEST_DIFFERENT} different characters.")
    if plain in _COMMON or _ENDS.sub("", plain) in _COMMON:
        raise BadPassword("This password is one of the first that are tried; take another.")
    if _is_run(plain):
        raise BadPassword("A password is not one run of neighbouring characters.")
    return password


def _is_run(plain: str) -> bool:
    """abcdefghijkl, 123456789012, 210987654321."""
    steps = {ord(after) - ord(before) for before, after in pairwise(plain)}
    return len(steps - {9, -9}) == 1 and steps <= {1, -1, 9, -9}
