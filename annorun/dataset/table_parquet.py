"""Long tables in Parquet files: text, integers, true/false; faults have a row, counted from 1."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from annorun.dataset.table_columns import Column, Faults, Form, LongTable, locate


def read_parquet(
    path: Path, names: Mapping[str, str], form: Form, faults: Faults
) -> LongTable | None:
    """Read the columns that are used; a column whose text form is not unique becomes a fault."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    faults.place = "row"
    try:
        with pq.ParquetFile(path) as file:
            header = list(file.schema_arrow.names)
            found = locate(header, names, form, faults)
            once = {
                key: header[index]
                for key, index in found.items()
                if header.count(header[index]) == 1
            }
            data = file.read(columns=sorted(set(once.values())), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        faults.add(f"not a readable Parquet file: {error}")
        return None
    columns = {}
    for key, name in once.items():
        column = _column(name, data[name], faults)
        if column is not None:
            columns[key] = column
    return LongTable(columns, np.arange(1, data.num_rows + 1))


def _column(name: str, data: Any, faults: Faults) -> Column | None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    kind = data.type.value_type if kinds.is_dictionary(data.type) else data.type
    if kinds.is_floating(kind):
        faults.add(
            f"floating-point numbers ({kind}): is it 1.0 or 1? store it as text or integers",
            column=name,
        )
        missing = pc.fill_null(pc.is_nan(data.cast(kind)), False)
        rows = np.flatnonzero(missing.to_numpy())
        faults.add_rows(
            rows, np.arange(1, len(data) + 1), name, lambda row: "NaN; a value is needed"
        )
        return None
    textual = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    if not (textual or kinds.is_integer(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)):
        faults.add(f"of type {kind}; allowed: text, integers, true/false", column=name)
        return None
    try:
        text = data.cast(kind).cast(pa.large_string()).combine_chunks()
        text.validate(full=True)
    except pa.ArrowInvalid as error:
        faults.add(f"not readable as text: {error}", column=name)
        return None
    coded = text.dictionary_encode(null_encoding="encode")
    codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return Column(name, coded.dictionary.to_pylist(), codes)
