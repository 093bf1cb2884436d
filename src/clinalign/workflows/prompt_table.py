"""Reading the CSV tables that a user writes: prompts to draw, images to evaluate."""

from __future__ import annotations

import csv
from pathlib import Path

from clinalign.core.errors import UserError, nearest


def read_table(path: Path, needed: str) -> list[dict[str, str]]:
    """Read a CSV file with a header line, UTF-8, every cell as text.

    Args:
        path: The file.
        needed: A column that must be there and filled in every row.

    Returns:
        One mapping a row; cells that a short row lacks are empty.

    Raises:
        UserError: When the file cannot be read, lacks the column, or has no row or an empty cell in it.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a CSV file with a column `{needed}`")
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="", restkey="")
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            for row in reader:
                rows.append(row)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    if needed not in columns:
        hint = nearest(needed, columns) if columns else "it is empty"
        raise UserError(f"{path} has no column `{needed}`, only {', '.join(columns) or 'nothing'}: {hint}")
    if not rows:
        raise UserError(f"{path} has a header and no row: write one line for each `{needed}`")
    for line, row in zip(lines, rows):
        if "" in row:  # cells beyond the header: the rest of a text that was cut at its first comma
            raise UserError(f"{path} line {line} has more cells than the header: put texts with commas into quotes")
        if not row[needed].strip():
            raise UserError(f"{path} line {line}: the column `{needed}` is empty")
    return rows
