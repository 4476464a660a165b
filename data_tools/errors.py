"""The one error of the data tools."""


class DataError(ValueError):
    """A data set cannot be read as asked. One line: what came, what was expected, what to do."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))  # a file name may hold a line break
