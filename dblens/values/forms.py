r"""Canonical forms: which text stands for a value, so that two engines can be compared octet by octet.

Codec version 1. A NULL has no text. Every other value is one UTF-8 text, exact for its form:

| form | text |
|---|---|
| int | decimal digits, `-` before negatives, no plus, no leading zeros. Booleans are 1 and 0. |
| decimal | plain decimal without exponent, no trailing fractional zeros, no trailing dot, never `-0`; `NaN`, `Infinity`, `-Infinity` |
| float | as decimal, from the shortest digits that round-trip the IEEE double (float32 widened first); `-0` for negative zero; `NaN` for any NaN |
| text | the characters, unchanged |
| bytes | lower-case hexadecimal, two digits an octet |
| date | `YYYY-MM-DD` (year at least 4 digits), ` BC` behind years before 1; `infinity`, `-infinity`; MySQL zero dates as they are |
| time | `[-]HH:MM:SS[.f]`, fraction without trailing zeros; hours at least 2 digits, may exceed 24 |
| timetz | time followed by its offset as PostgreSQL prints it |
| timestamp | `YYYY-MM-DD HH:MM:SS[.f]`, fraction without trailing zeros, ` BC` and infinities as in date |
| timestamptz | the same, in UTC, no offset |
| interval | `<months> <days> <microseconds>`, three signed integers; `infinity`, `-infinity` (PostgreSQL 17) |
| uuid | 36 characters, lower case |
| json | RFC 8259 text: object keys sorted by code point (last duplicate wins), no white space, numbers as in decimal, only `"`, `\` and control characters escaped (`\n`, `\u0000` …); a lone surrogate as `\ud800`; a number that would need more than 20,000 added zeros as `<digits>e<n>` |
| bits | `0` and `1` |
| geometry | lower-case hexadecimal of little-endian WKB, preceded by `<srid>:` |
| document | hybrid Extended JSON of a BSON value (see `dblens.engines.mongodb.extjson`), keys in stored order |
| native | the engine's own exact text; only between two databases of one engine family |
| dynamic | SQLite's storage class and value: `i:`int, `r:`float, `t:`text (its raw octets where they are not UTF-8), `b:`bytes |
| bson | lower-case hexadecimal of the raw BSON document |
"""

from __future__ import annotations

from enum import StrEnum

CODEC_VERSION = 1


class Form(StrEnum):
    """Name of a canonical form; the module's table defines each."""

    INT = "int"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMETZ = "timetz"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    UUID = "uuid"
    JSON = "json"
    BITS = "bits"
    GEOMETRY = "geometry"
    DOCUMENT = "document"
    NATIVE = "native"
    DYNAMIC = "dynamic"
    BSON = "bson"
