"""mongosh-style text: what it means, where it is wrong, and that nothing in it can bring the reader down."""

from __future__ import annotations

import base64
import math
import time
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from dblens.engines.mongodb import extjson, shell
from dblens.engines.mongodb.ask import reads
from dblens.engines.mongodb.ask_commands import asked
from dblens.errors import DBLensError, InvalidInput, PermissionDenied

OID = "5f5e1d000000000000000001"


def value(text: str) -> Any:
    """Return what a value means, read as the argument of a method."""
    (call,) = shell.parse(f"db.c.insertOne({text})").calls
    return call.args[0]


def short(error: DBLensError) -> None:
    assert len(error.message) < 500


def same(found: Any, wanted: Any) -> bool:
    return bson.encode({"": found}) == bson.encode({"": wanted})


def command(text: str, *params: object) -> dict[str, Any]:
    return asked(shell.parse(text, params), "test").commands[0]


# --------------------------------------------------------------------------------------------------------------------- meanings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("5", 5), ("2147483648", Int64(2**31)), ("-2147483648", -(2**31)), ("9007199254740993", Int64(2**53 + 1)), ("5n", Int64(5)), ("0x10", 16),
        ("5.0", 5.0), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-0", -0.0), ("+7", 7), ("-.5e-3", -0.0005),
        ("Infinity", math.inf), ("-Infinity", -math.inf), ("NaN", math.nan), ("true", True), ("false", False), ("null", None),
        (r"'a\'b\"c\n\x41\u0042\u{1F600}\
d'", "a'b\"c\nAB😀d"), (r"'\uD83D\uDE00'", "😀"), ('"a\'b"', "a'b"),
        ("{}", {}), ("[]", []), ("[1, 2,]", [1, 2]), ("{a: 1, 'b c': 2, \"d\": 3, $x: 4, 5: 6, }", {"a": 1, "b c": 2, "d": 3, "$x": 4, "5": 6}),
        ("{a /* x */ : // y\n 1}", {"a": 1}), ("{new: 1, null: 2, true: 3, é: 4}", {"new": 1, "null": 2, "true": 3, "é": 4}),
        ("/a\\/[/]b/xi", Regex("a\\/[/]b", "ix")), ("RegExp('a', 'i')", Regex("a", "i")),
        (f"ObjectId('{OID}')", ObjectId(OID)), (f"new ObjectId(\"{OID}\")", ObjectId(OID)), (f"{{$oid: '{OID}'}}", ObjectId(OID)),
        ("NumberLong('9223372036854775807')", Int64(2**63 - 1)), ("NumberLong(5)", Int64(5)), ("Long.fromString('-1')", Int64(-1)), ("{$numberLong: '5'}", Int64(5)),
        ("NumberInt(5)", 5), ("Int32('5')", 5), ("{$numberInt: '5'}", 5), ("NumberDecimal('1.10')", Decimal128("1.10")), ("Decimal128('NaN')", Decimal128("NaN")),
        ("Double(5)", 5.0), ("{$numberDouble: '-0.0'}", -0.0), ("{$numberDouble: 'NaN'}", math.nan), ("{$numberDecimal: '1E+3'}", Decimal128("1E+3")),
        ("ISODate('2026-01-31T12:30:00.5Z')", DatetimeMS(1769862600500)), ("new Date('2026-01-31')", DatetimeMS(1769817600000)), ("new Date(-1)", DatetimeMS(-1)),
        ("ISODate('2026-01-31T12:30:00+02:00')", DatetimeMS(1769855400000)), ("ISODate('0001-01-01T00:00:00Z')", DatetimeMS(-62135596800000)),
        ("{$date: '2026-01-31T00:00:00Z'}", DatetimeMS(1769817600000)), ("{$date: {$numberLong: '5'}}", DatetimeMS(5)),
        ("BinData(0, 'AAE=')", Binary(b"\0\1", 0)), ("HexData(5, '00ff')", Binary(b"\0\xff", 5)), ("{$binary: {base64: 'AAE=', subType: '80'}}", Binary(b"\0\1", 128)),
        ("UUID('00112233-4455-6677-8899-aabbccddeeff')", Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4)),
        ("{$uuid: '00112233-4455-6677-8899-aabbccddeeff'}", Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4)),
        ("Timestamp(1, 2)", Timestamp(1, 2)), ("Timestamp({t: 1, i: 2})", Timestamp(1, 2)), ("{$timestamp: {t: 1, i: 2}}", Timestamp(1, 2)),
        ("MinKey", MinKey()), ("MaxKey()", MaxKey()), ("new MinKey()", MinKey()), ("{$maxKey: 1}", MaxKey()),
        (f"DBRef('c', ObjectId('{OID}'))", {"$ref": "c", "$id": ObjectId(OID)}), ("{$regularExpression: {pattern: 'a', options: 'i'}}", Regex("a", "i")),
        ("{$dblensDocument: {$oid: 1}}", {"$oid": 1}), ("{$gt: {$numberLong: '1'}}", {"$gt": Int64(1)}), ("EJSON('{\"a\": {\"$oid\": \"" + OID + "\"}}')", {"a": ObjectId(OID)}),
        ("EJSON({a: 1})", {"a": 1}),
    ],
)  # fmt: skip
def test_what_a_value_means(text: str, wanted: Any) -> None:
    found = value(text)
    assert same(found, wanted), found
    if isinstance(found, dict):
        assert list(found) == list(wanted)


def test_statements_as_the_shell_writes_them() -> None:
    assert command("db.orders.find({a: 1}, {b: 1}).sort({b: -1}).limit(5).skip(2)") == {
        "find": "orders", "filter": {"a": 1}, "projection": {"b": 1}, "sort": {"b": -1}, "limit": 5, "skip": 2,
    }  # fmt: skip
    assert command('db["odd name"].find()')["find"] == "odd name"
    assert command('db.getCollection("x.y").find();')["find"] == "x.y"
    assert command("db.a.b\n  // a comment\n  .find()")["find"] == "a.b"
    assert command("db.c.distinct('a', {b: 1})") == {"distinct": "c", "key": "a", "query": {"b": 1}}
    assert command("db.c.find().toArray()") == {"find": "c", "filter": {}}
    assert command("db.c.aggregate([{$match: {a: ?}}])", "$x")["pipeline"] == [{"$match": {"a": "$x"}}]
    assert command("db.c.aggregate([{$project: {a: ?}}])", "$x")["pipeline"] == [
        {"$project": {"a": {"$literal": "$x"}}}
    ]
    assert command("db.c.updateOne({_id: ?}, {$set: {a: ?}})", 1, "$x")["updates"][0]["u"] == {"$set": {"a": "$x"}}
    assert command("db.c.updateOne({_id: 1}, [{$set: {a: ?}}])", "$x")["updates"][0]["u"] == [
        {"$set": {"a": {"$literal": "$x"}}}
    ]
    assert command("db.c.findOneAndUpdate({a: ?}, [{$set: {a: ?}}])", "$x", "$y")["update"] == [
        {"$set": {"a": {"$literal": "$y"}}}
    ]
    assert command("db.c.bulkWrite([{updateOne: {filter: {a: ?}, update: [{$set: {b: ?}}]}}])", "$x", "$y")["updates"][0] == {
        "q": {"a": "$x"}, "u": [{"$set": {"b": {"$literal": "$y"}}}], "multi": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("", 1, 1, "no statement"), ("db.c.find({a: 1}", 1, 17, "missing"), ("db.c.find({a 1})", 1, 14, "':' is missing"), ("db.c.find({a: 1 b: 2})", 1, 17, "missing"),
        ("db.c.find(\n  {a: nonsense})", 2, 7, "no value"), ("db.c.find({a: 'x\n'})", 1, 15, "does not end"), ("db.c.find({a: 1}) db", 1, 19, "more than one"),
        ("db.c.find({a: 01})", 1, 15, "begins with 0"), ("db.c.find({a: /x})", 1, 15, "does not end"), ("db.c.find(/* x)", 1, 11, "does not end"),
        ("db.c.find({a: 1, a: 2})", 1, 18, "twice"), ("db.c.find({a: undefined})", 1, 15, "undefined"), ("db.c.find({a: `x`})", 1, 15, "template"),
        ("db.c.find({a: 1 + 1})", 1, 17, "missing"), ("db.c.find({...x})", 1, 12, "spreading"), ("db.c.find({a: x => 1})", 1, 17, "character"), ("db.c.find({a: f()})", 1, 15, "no value"),
        ("db.c.find({a: ObjectId('5')})", 1, 15, "24 hexadecimal"), ("db.c.find({a: NumberLong('x')})", 1, 15, "whole number"), ("db.c.find({a: ISODate('2026-02-30')})", 1, 15, "no such day"),
        ("db.c.find({a: NumberDecimal(1.1)})", 1, 15, "exact"), ("db.c.find({a: ISODate('2026-01-01T00:00:00.0001Z')})", 1, 15, "finer"), ("db.c.find({a: 9223372036854775808})", 1, 15, "64 bits"),
        ("db.c.find({a: 1e999})", 1, 15, "beyond a double"), (r"db.c.find({a: '\uD800'})", 1, 15, "surrogate"), ("db.c.find({a: {$oid: 5}})", 1, 15, "string"),
        ("db.c.find({a: {$numberLong: '5', b: 1}})", 1, 15, "beside"), ("db.c.find(5)", 1, 11, "document"), ("db.c.find().limit(-1)", 1, 19, "not negative"), ("db.c.find().foo()", 1, 13, "no method"),
        ("db.c.fnd()", 1, 6, "no method"), ("db.c.find({}, {}, {bogus: 1})", 1, 19, "not known"), ("db.c.find({a: ?})", 1, 15, "without a value"), ("db.c", 1, 5, "method is missing"), ("use x", 1, 1, "changes the database"),
        ("show users", 1, 6, "shown"), ("db.c.find({a: /x/q})", 1, 15, "options"), ("\n\n  db.c.find({a:})", 3, 16, "missing"), ("x = 1", 1, 3, "character"), ("x(1)", 1, 1, "begins with db"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(InvalidInput) as told:
        asked(shell.parse(text), "test")
    assert f"line {line}, column {column}" in told.value.message, told.value.message
    assert said in told.value.message
    before = text.split("\n")[: line - 1]
    assert told.value.position == sum(len(each) + 1 for each in before) + column - 1  # type: ignore[attr-defined]


def test_where_statements_end() -> None:
    text = "db.a.find({\n x: 1})\n  .sort({x: 1})\ndb.b.find(); show collections\n// end; of\ndb.c.find(';\\'')"
    assert [text[begin:end] for begin, end in shell.split(text)] == [
        "db.a.find({\n x: 1})\n  .sort({x: 1})", "db.b.find()", "show collections", "db.c.find(';\\'')",
    ]  # fmt: skip
    assert shell.split(" // nothing\n;;") == []


@pytest.mark.parametrize(
    ("text", "only"),
    [
        ("db.c.find({a: :x}).limit(:n).skip(:m)", True), ("db.c.find({a: NumberLong(:x), b: ObjectId(:y), c: {$date: :z}})", True), ("db.c.find(:filter)", True),
        ("db.c.distinct(:key)", True), ("db.c.aggregate([{$match: {a: :x}}])", True), ("db.c.aggregate([{$out: :x}])", False), ("db.c.aggregate(EJSON(:x))", False),
        ("db.c.find({$where: :x})", False), ("db.c.find({a: Code(:x)})", False), ("db.c.find({a: {$code: :x}})", False), ("db.c.deleteOne({a: :x})", False), ("db.runCommand(:x)", False),
        ("db.c.find(); show dbs", True), ("db.c.find(); db.c.drop()", False), ("db.c.find({a: ?})", True),
    ],
)  # fmt: skip
def test_what_reads_whatever_its_parameters_are(text: str, *, only: bool) -> None:
    assert reads(text) is only


# ------------------------------------------------------------------------------------------------------------- there and back

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
KEYS = st.one_of(
    st.sampled_from([*sorted(extjson.WRAPPERS), "$ref", "$id", "a.b", "", "$x", "_id", "a", "new", "true", "5", "a b", "é😀", "\u2028", "__proto__"]),
    TEXTS.filter(lambda text: "\0" not in text),
)  # fmt: skip
INT64 = st.integers(-(2**63), 2**63 - 1)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**31), 2**31 - 1), INT64.map(Int64), st.integers(-5, 5).map(Int64), st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, 5e-324, math.inf, -math.inf, math.nan]), TEXTS, st.binary(min_size=12, max_size=12).map(ObjectId), INT64.map(DatetimeMS),
    st.tuples(st.binary(max_size=20), st.sampled_from([0, 1, 3, 4, 5, 6, 7, 8, 9, 128, 255])).map(lambda t: Binary(*t)),
    st.decimals(allow_nan=False).filter(lambda d: len(d.as_tuple().digits) <= 34 and abs(d.adjusted()) < 6000).map(Decimal128),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "-0", "0E+10", "1.500", "1E-6176"]).map(Decimal128),
    st.tuples(TEXTS.filter(lambda t: "\0" not in t), st.sampled_from(["", "i", "imsx"])).map(lambda t: Regex(*t)),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(lambda t: Timestamp(*t)), st.just(MinKey()), st.just(MaxKey()),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=6)


def spelled(found: Any) -> str:
    """Return a value as somebody would write it in the shell."""
    match found:
        case Int64():
            return f'NumberLong("{int(found)}")'
        case bool() | None:
            return extjson.encode(found)
        case int():
            return f"NumberInt({found})"
        case float():
            name = "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"
            return repr(found) if math.isfinite(found) else name
        case ObjectId():
            return f"ObjectId('{found}')"
        case DatetimeMS():
            return f"new Date(NumberLong('{int(found)}'))"
        case Binary():
            return f"BinData({found.subtype}, '{base64.b64encode(found).decode()}')"
        case Decimal128():
            return f"NumberDecimal('{found}')"
        case Regex():
            flags = "".join(letter for bit, letter in ((2, "i"), (8, "m"), (16, "s"), (64, "x")) if found.flags & bit)
            return f"RegExp({spelled(found.pattern)}, '{flags}')"
        case Timestamp():
            return f"Timestamp({found.time}, {found.inc})"
        case MinKey():
            return "MinKey"
        case MaxKey():
            return "MaxKey()"
        case str():
            escapes = {"'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": "\\x00", "\u2028": "\\u2028"}
            return "'" + "".join(escapes.get(each, each) for each in found) + "'"
        case list():
            return "[" + "".join(f"{spelled(each)}, " for each in found) + "]"
        case dict():
            text = "{" + ", ".join(f"{spelled(key)}: {spelled(each)}" for key, each in found.items()) + "}"
            return f"{{$dblensDocument: {text}}}" if next(iter(found), "") in extjson.WRAPPERS else text
    raise AssertionError(found)


@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_what_an_answer_shows_is_taken_back_exactly(document: dict[str, Any]) -> None:
    assert bson.encode(value(extjson.encode(document))) == bson.encode(document)


@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_what_is_spelled_with_constructors_is_taken_exactly(document: dict[str, Any]) -> None:
    assert bson.encode(value(spelled(document))) == bson.encode(document)


@given(DOCUMENTS)
@settings(max_examples=100, deadline=None)
def test_a_parameter_is_what_it_is(document: dict[str, Any]) -> None:
    """As a value where it has no `$` keys, refused where it has: nothing in between."""
    patterns = any(isinstance(each, Regex) for each in _leaves(document))  # a pattern is no value that is compared
    dollars = any(part.startswith("$") for part in _keys(document))
    if dollars or patterns:
        with pytest.raises(InvalidInput):
            command("db.c.insertOne({_id: 1, a: ?})", document)
    else:
        assert bson.encode(command("db.c.insertOne({_id: 1, a: ?})", document)["documents"][0]["a"]) == bson.encode(
            document
        )


def _keys(found: Any) -> list[str]:
    if isinstance(found, dict):
        return [*found, *(key for each in found.values() for key in _keys(each))]
    return [key for each in found for key in _keys(each)] if isinstance(found, list) else []


def _leaves(found: Any) -> list[Any]:
    if isinstance(found, dict):
        return [leaf for each in found.values() for leaf in _leaves(each)]
    return [leaf for each in found for leaf in _leaves(each)] if isinstance(found, list) else [found]


@pytest.mark.parametrize(
    "text", ["{$code: '1'}", "{$code: '1', $scope: {}}", "Code('1')", "new Code('1')", "Function('1')", "{$symbol: 'x'}", "{$undefined: true}", "undefined", "{$dbPointer: {}}"]
)  # fmt: skip
def test_what_bson_has_and_nobody_may_write(text: str) -> None:
    with pytest.raises((InvalidInput, PermissionDenied)):
        value("{a: " + text + "}")
    with pytest.raises((InvalidInput, PermissionDenied)):
        command("db.c.insertOne({a: ?})", Code("1"))


# ---------------------------------------------------------------------------------------------------------------------- fuzzing

PIECES = st.sampled_from(
    ["db", ".", "c", "find", "(", ")", "{", "}", "[", "]", ",", ":", "'", '"', "/", "\\", "a", "$match", "$out", "1", "-", "+", "0x", "1e", "n", "?", ":p", "`", "=>",
     "ObjectId", "ISODate", "Timestamp", "BinData", "NumberLong", "NumberDecimal", "UUID", "new ", "EJSON", "$oid", "$date", "$binary", "$numberLong", "$regularExpression",
     "$timestamp", "{a:", "'x'", "//", "/*", "*/", "\n", "\0", "\ud800", "\u2028", "é", "😀", "aggregate", "explain", "limit", "updateOne", "bulkWrite", "runCommand", "null",
     "NaN", "Infinity", "-1", "1.5", "{}", "[]", "()", "db.c.find(", ").sort({", "db.c.aggregate([", "db.runCommand({"]
)  # fmt: skip


@given(
    st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join),
    st.lists(st.none() | st.integers() | st.text(max_size=3) | VALUES, max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_no_text_brings_it_down(text: str, params: list[Any]) -> None:
    for given_ in ((), params, None):
        try:
            for made in asked(shell.parse(text, given_), "test").commands:
                bson.encode(made)
        except DBLensError as error:
            short(error)
    if _splits(text):
        reads(text)


@given(st.sampled_from(
    ["ObjectId", "ISODate", "Date", "NumberLong", "Long", "NumberInt", "NumberDecimal", "Double", "UUID", "BinData", "HexData", "Timestamp", "DBRef", "RegExp", "MinKey", "Long.fromString"]
), st.lists(VALUES, max_size=3))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_argument_brings_a_constructor_down(name: str, args: list[Any]) -> None:
    try:
        bson.encode({"": value(f"{name}({', '.join(map(spelled, args))})")})
    except DBLensError as error:
        short(error)


@given(st.sampled_from(
    ["$oid", "$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$uuid", "$binary", "$timestamp", "$regularExpression", "$minKey", "$code", "$symbol", "$dblensDocument"]
), VALUES)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_wrapper_brings_it_down(name: str, inner: Any) -> None:
    try:
        bson.encode({"": value(f"{{{name}: {spelled(inner)}}}")})
    except DBLensError as error:
        short(error)


def _splits(text: str) -> bool:
    try:
        shell.split(text)
    except InvalidInput:
        return False
    return True


MEBI = 1024 * 1024
HOSTILE = {
    "brackets": "db.c.find(" + "[" * MEBI, "braces": "db.c.find(" + "{a:" * (MEBI // 3), "calls": "db.c.find(" + "ObjectId(" * (MEBI // 9), "ejson": "db.c.find(" + "EJSON(" * (MEBI // 6),
    "ejson in text": "db.c.find(EJSON('" + "[" * MEBI + "'))", "signs": "db.c.find(" + "-" * MEBI, "backslashes": "db.c.find('" + "\\" * MEBI, "quotes": "db.c.find(" + "'" * (MEBI + 1),
    "regex": "db.c.find(/" + "[" * MEBI, "regex classes": "db.c.find(/" + "[a]" * (MEBI // 3), "regex escapes": "db.c.find(/" + "\\a" * (MEBI // 2), "comments": "/*" * (MEBI // 2), "slashes": "/" * MEBI,
    "lines": "//\n" * (MEBI // 3), "dots": "db" + ".a" * (MEBI // 2), "digits": "db.c.find({a: " + "9" * MEBI, "hex": "db.c.find({a: 0x" + "f" * MEBI + "})", "decimal": "db.c.find({a: NumberDecimal('" + "9" * MEBI + "')})",
    "exponent": "db.c.find({a: 1e" + "9" * MEBI + "})", "oid": "db.c.find({a: ObjectId('" + "a" * MEBI + "')})", "date": "db.c.find({a: ISODate('" + "2" * MEBI + "')})", "blanks": "db.c.find(" + " " * MEBI,
    "semicolons": "db.c.find()" + ";" * MEBI, "commas": "db.c.find(" + "," * MEBI, "key": "db.c.find({" + "k" * MEBI + "})", "surrogates": "db.c.find('" + "\\ud800" * (MEBI // 6), "word": "d" * MEBI,
    "base64": "db.c.find({a: BinData(0, '" + "A" * MEBI + "')})", "documents": "db.c.insertMany([" + "{a:1}," * (MEBI // 6) + "])", "params": "db.c.find([" + "?," * (MEBI // 2) + "])",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_of_anything_is_bounded(name: str) -> None:
    text = HOSTILE[name]
    begun = time.process_time()
    try:
        asked(shell.parse(text), "test")
    except DBLensError as error:
        short(error)
    _splits(text)
    assert time.process_time() - begun < 10


def test_nesting_is_bounded_wherever_it_comes_from() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    for text, params in (
        ("db.c.find({a: " + "[" * 101 + "]" * 101 + "})", ()),
        ("db.c.find({a: ?})", (deep,)),
        ("db.c.find({a: EJSON(?)})", (deep,)),
        ("db.c.find(EJSON(?))", ("[" * 500,)),
    ):
        with pytest.raises(InvalidInput, match="nested"):
            shell.parse(text, params)
    assert value("[" * 90 + "]" * 90)
