"""The one error of the data tools."""

import re


class DataError(ValueError):
    """A data set cannot be read as asked. One line: what came, what was expected, what to do."""

    def __init__(self, message: str) -> None:
        line = " ".join(readable(str(message)).split())  # a file name may hold a line break, or steer the terminal
        super().__init__(re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], line))


def readable(name: str) -> str:
    """A file name as text that can be written anywhere: bytes that are no UTF-8 come as \\udcff."""
    return name.encode("utf-8", "backslashreplace").decode()
