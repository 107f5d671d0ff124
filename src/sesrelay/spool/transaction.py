"""The open transaction, and the operations on it that belong to no other module."""

from __future__ import annotations

import apsw

from sesrelay.spool import query
from sesrelay.spool.claims import Claims
from sesrelay.spool.tally import Tally


class Transaction:
    """What an operation works with: a cursor in the open transaction, and what memory keeps beside it."""

    def __init__(self, db: apsw.Connection, claims: Claims, tally: Tally) -> None:
        self.db = db
        self.cursor = db.cursor()
        self.claims = claims
        self.tally = tally
        self.ended: list[int] = []
        """Messages whose content is in a file that may go after COMMIT."""


def execute(tx: Transaction, statement: str, bindings: query.Row) -> None:
    tx.cursor.execute(statement, bindings)


def nothing(tx: Transaction) -> None:
    """Do nothing, in a transaction: the writer lives, and the store can be locked for writing."""
