"""Cases inside one test: what fails says which one it was."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(name: object) -> Iterator[None]:
    """Add the name of a case to whatever is raised within; pytest prints it below the error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"case: {name}")
        raise
