"""Values of outside files, held to the types that a dataclass declares for its fields."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from medxpertqa.errors import DataError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def check_types(kind: type, values: Mapping[str, Any], name: str) -> None:
    """Raise `DataError` that names the first field of dataclass `kind` whose value is of another type.

    Nothing is converted: "3" is no number. `name` says whose values they are, and begins the message.
    """
    from pydantic import ValidationError

    for key, value in values.items():
        try:
            _field(kind, key).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise DataError(f"{name}: {key} is {reprlib.repr(value)}: {problem}") from None


@cache
def _field(kind: type, key: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(get_type_hints(kind)[key])
