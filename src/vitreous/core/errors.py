"""The one exception for what the user can mend."""

from __future__ import annotations

from pathlib import Path

LEFT_OUT = 3  # exit code of a job that is done but for the items it names
LOST = 75  # exit code of a rank that lost the others (EX_TEMPFAIL): the run may be started again


class InputError(Exception):
    """Something the user gave is wrong: shown as one line, exit code 2, no traceback.

    where: the file (or option) at fault; what: what is wrong with it; remedy: what to do about it.
    """

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        self.where = str(where)
        self.what = what
        self.remedy = remedy
        super().__init__(f"{self.where}: {what}. {remedy}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Another rank can send it."""
        return type(self), (self.where, self.what, self.remedy)
