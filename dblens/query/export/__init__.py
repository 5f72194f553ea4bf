r"""Rows out of a database into a file: streamed, in bounded memory, and what the file cannot hold is named.

Two styles. **safe** is for people and spreadsheets: a cell of text that a spreadsheet would take for a formula begins with `'`, SQLite's
storage classes are not told apart. **exact** comes back as it was: `query.load` restores rows with an equal digest.

| format | exact |
|---|---|
| csv, tsv | NULL is nothing, an empty text `""`; octets in hexadecimal; types in a sidecar, `<file>.dblens.json` (`Sidecar`) |
| jsonl | numbers that a double holds are numbers, others text; JSON values are texts; `{"$dblens": [form, text]}` for odd cells; sidecar |
| xlsx | as csv, but numbers and Booleans that Excel holds are its own; an empty text is marked; the sidecar lies in the hidden sheet `dblens` |
| parquet, arrow | the Arrow schema with its metadata, and the column `dblens:odd` (`dblens.engines.arrow`) |

Marks (csv, tsv, xlsx): a cell that begins with `'[` is `'` and JSON `[form, text]`: what its column's type or the format cannot hold, and
every text that begins so itself. Instants end with `Z`. In csv an empty line of a table with one column is NULL.
"""

from dblens.query.export.model import FORMATS, Exported, Format, Loss, Options, Sidecar, Style, format_of
from dblens.query.export.target import Target, sidecar_path
from dblens.query.export.work import Export, write

__all__ = [
    "FORMATS", "Export", "Exported", "Format", "Loss", "Options", "Sidecar", "Style", "Target", "format_of", "sidecar_path", "write",
]  # fmt: skip
