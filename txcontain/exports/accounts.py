"""Who a config's USER or USER:GROUP is in an image.

As ``container/init.py``, which shares no code, finds it.
"""

from __future__ import annotations

from collections.abc import Iterator

from txcontain.container.keys import LARGEST_ID, OWNER
from txcontain.errors import ConfigAtFault
from txcontain.exports.subject import Account


def find_account(owner: str, passwd: str, group: str) -> Account:
    """Who this is, by the image's /etc/passwd and /etc/group (passwd(5), group(5)).

    Raises ConfigAtFault if a name is not in there; root and numbers need not be.
    """
    user, colon, its_group = owner.partition(":")
    account = _find_user(user, passwd)
    if not colon:
        return account
    return Account(account.uid, _find_group(its_group, group), account.name, account.home)


def _find_user(user: str, passwd: str) -> Account:
    number = int(user) if user.isdecimal() else None
    for name, _, uid, gid, _, home, _ in _records(passwd, 7):
        if _is_id(gid) and (name == user if number is None else int(uid) == number):
            return Account(int(uid), int(gid), name, home or "/")
    if user == "root":
        number = 0
    if number is None:
        hint = "name a user of its /etc/passwd, or a number"
        raise ConfigAtFault(f"the image knows no user {user!r}", hint)
    return Account(number, number, user, "/")


def _find_group(group: str, groups: str) -> int:
    if group.isdecimal():
        return int(group)
    for name, _, number, _ in _records(groups, 4):
        if name == group:
            return int(number)
    hint = "name a group of its /etc/group, or a number"
    raise ConfigAtFault(f"the image knows no group {group!r}", hint)


def _records(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.split("\n"):
        record = line.split(":")
        if len(record) == fields and _is_id(record[2]) and OWNER.fullmatch(record[0]):
            yield record


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID
