"""Rows of the report's own CSV tables, which other programs of it draw."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from wspin.config.explain import value_message
from wspin.errors import StudyError, first_line
from wspin.escaping import escaped
from wspin.storage.opening import readable
from wspin.storage.provenance import check_recorded

Mean = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]  # of fractions, and of metrics that are none
Name = Annotated[str, AfterValidator(escaped)]  # of a model or arm, as a figure shows it


def read_rows(path: str | Path, row_type: Any, what: str, may_be_empty: bool = False) -> list[Any]:
    """The rows of a CSV as named tuples of the type, from the columns of its fields' names.

    `what`: what the table is of. Raises `StudyError` if there is none, or it is damaged or malformed.
    """
    check_recorded(path)
    try:
        with open(path, newline="", opener=readable) as file:
            table = csv.reader(file)  # pandas fills short rows and cuts long ones
            header, rows = next(table, []), list(table)
    except FileNotFoundError:
        raise StudyError(f"{path}: expected a table of {what}, found no file; make it first") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: expected a table of {what}, found {first_line(error)}; make it again") from None
    if not {*row_type._fields} <= {*header} or not (rows or may_be_empty):
        expected, found = f"{','.join(row_type._fields)} and rows below it", ",".join(header) or "nothing"
        raise StudyError(f"{path}: header: expected {expected}, found {found} and {len(rows)}; make it again")
    places = [header.index(field) for field in row_type._fields]
    picked = [[row[i] for i in places] if len(row) == len(header) else row for row in rows]
    try:
        return TypeAdapter(list[row_type]).validate_python(picked)
    except ValidationError as error:
        raise StudyError(f"{path}: {_mistake(error, row_type._fields)}; make the table again") from None


def _mistake(error: ValidationError, fields: Sequence[str]) -> str:
    mistake = error.errors()[0]
    row, *column = mistake["loc"]
    return f"row {row + 1}: {fields[column[0]] if column else 'fields'}: {value_message(mistake)}"
