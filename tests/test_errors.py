"""The error tree: what its docstring draws is what there is, and messages help."""

import inspect

import pytest

from dalle_flow import errors
from dalle_flow.errors import DalleFlowError, FailureError, UnknownNameError, UsageError


def tree(base: type[DalleFlowError]) -> set[type[DalleFlowError]]:
    own = [cls for cls in base.__subclasses__() if cls.__module__ == errors.__name__]
    return {base}.union(*(tree(cls) for cls in own))


def test_every_class_has_a_code_of_its_own() -> None:
    classes = tree(DalleFlowError)
    assert len({cls.code for cls in classes}) == len(classes)
    assert all(cls.__name__.endswith("Error") for cls in classes)


def test_every_class_is_usage_or_failure() -> None:
    """The exit code follows from it."""
    for cls in tree(DalleFlowError) - {DalleFlowError}:
        assert issubclass(cls, UsageError) != issubclass(cls, FailureError), cls


def test_the_docstring_draws_the_tree() -> None:
    drawn = inspect.getdoc(errors) or ""
    for cls in tree(DalleFlowError):
        assert cls.__name__ in drawn, cls


def test_an_error_carries_message_field_and_code() -> None:
    error = errors.OptionError("seed must be 0 or more, got -1", field="seed")
    assert str(error) == error.message == "seed must be 0 or more, got -1"
    assert (error.field, error.code) == ("seed", "option")


def test_an_unknown_name_names_the_nearest_and_all() -> None:
    error = UnknownNameError.of("executor", "dale", ["rank", "dalle"])
    assert error.message == "no executor named 'dale'; did you mean 'dalle'? Known: dalle, rank."
    assert error.field == "executor"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (["dalle"], "no executor named 'xyz'. Known: dalle."),
        ([], "no executor named 'xyz'. Known: none."),
    ],
)
def test_an_unknown_name_far_from_all(known: list[str], message: str) -> None:
    assert UnknownNameError.of("executor", "xyz", known).message == message
