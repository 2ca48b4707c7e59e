"""Errors that a person can act on: one sentence in a notebook, without the fifty lines of code that led to it."""


class KitError(Exception):
    """An error whose message says it all; IPython shows the message alone instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
