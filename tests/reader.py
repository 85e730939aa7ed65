"""Reads files as the programs do that they are made for, and prints what is in them as JSON: tests/python tests/reader.py

    rows FILE        a workbook (by openpyxl) or Parquet (by DuckDB): its cells as a CSV of Shanghai's time would have them
    types FILE…      of each of them what its cells are, whatever they hold: in a workbook their types and formats, in Parquet the columns'
    facts FILE       what it says of itself
    sql FILE         the statements of a document, each with its rows, run by DuckDB where it is called
"""

import datetime
import json
import re
import sys

SHANGHAI = datetime.timedelta(hours=8)


def text_of(value, decimals=0, utc=False):
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, datetime.datetime):
        # A workbook counts in days: what is read back is within half a second.
        value = value.replace(tzinfo=None) + SHANGHAI if utc else value + datetime.timedelta(milliseconds=500)
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if decimals:
        return f"{value:.{decimals}f}"
    return str(value)


def cell_text(cell):
    if isinstance(cell.value, datetime.datetime) and "h" not in cell.number_format:
        return cell.value.date().isoformat()
    # A share is shown in per cent, with two decimals of those.
    return text_of(cell.value, decimals={"0.00": 2, "0.00%": 4}.get(cell.number_format, 0))


def rows_of_workbook(path):
    import openpyxl

    workbook = openpyxl.load_workbook(path)
    sheets = []
    for sheet in workbook.worksheets:
        formulas = [cell.coordinate for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
        rows = [[cell_text(cell) for cell in row] for row in sheet.iter_rows()]
        sheets.append({"name": sheet.title, "frozen": sheet.freeze_panes, "formulas": formulas, "rows": rows})
    return sheets


def parquet(path):
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection, f"'{path}'"


def rows_of_parquet(path):
    connection, name = parquet(path)
    found = connection.execute(f"SELECT * FROM read_parquet({name})")
    columns = [column[0] for column in found.description]
    types = [str(column[1]) for column in found.description]
    rows = [[text_of(value, utc=True) for value in row] for row in found.fetchall()]
    return {"columns": columns, "types": types, "rows": rows}


def types_of_workbook(path):
    import openpyxl

    sheets = []
    for sheet in openpyxl.load_workbook(path).worksheets:
        # Without a value a cell is nothing.
        kind = lambda cell: "" if cell.value is None else f"{cell.data_type} {cell.number_format}"
        rows = [[kind(cell) for cell in row] for row in sheet.iter_rows()]
        sheets.append({"name": sheet.title, "frozen": sheet.freeze_panes, "rows": rows})
    return sheets


def types_of_parquet(path):
    connection, name = parquet(path)
    return [[column, kind] for column, kind, *_ in connection.execute(f"DESCRIBE FROM read_parquet({name})").fetchall()]


def facts_of_parquet(path):
    connection, name = parquet(path)
    found = connection.execute(f"SELECT key, value FROM parquet_kv_metadata({name})").fetchall()
    return {bytes(key).decode(): bytes(value).decode() for key, value in found}


def answers(path):
    import duckdb

    connection = duckdb.connect()
    with open(path, encoding="utf-8") as document:
        statements = re.findall(r"```sql\n(.*?)```", document.read(), re.DOTALL)
    return [[[text_of(value) for value in row] for row in connection.execute(one).fetchall()] for one in statements]


def main(what, path, *more):
    if what == "types":
        found = [types_of_workbook(one) if one.endswith(".xlsx") else types_of_parquet(one) for one in (path, *more)]
    elif what == "rows":
        found = rows_of_workbook(path) if path.endswith(".xlsx") else rows_of_parquet(path)
    elif what == "facts":
        found = facts_of_parquet(path)
    else:
        found = answers(path)
    json.dump(found, sys.stdout, ensure_ascii=False)


main(*sys.argv[1:])
