"""The accelerator and its Python twin: one definition, tried on both, and equal on whatever hypothesis finds."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from array import array
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from dblens.values import codec, speed
from dblens.values.digest import Accumulator, Fingerprint, Sum, bucket_of, line, row_digest
from dblens.values.forms import Form

ROOT = Path(__file__).parents[3]
INF, NAN = float("inf"), float("nan")


def built() -> tuple[speed.Kit, Any] | str:
    """The C kit from today's source and its module, or why it cannot be built here."""
    folder = ROOT / ".pytest_cache" / "speed"
    folder.mkdir(parents=True, exist_ok=True)
    source = b"".join([p.read_bytes() for p in sorted((ROOT / hatch_build.SOURCE).parent.glob("*.[ch]"))])
    target = folder / f"_speed-{hashlib.sha256(source).hexdigest()[:16]}.so"
    try:
        if not target.exists():
            hatch_build.build(ROOT / hatch_build.SOURCE, target)
    except hatch_build.NotBuilt as reason:
        return str(reason)
    spec = importlib.util.spec_from_file_location("_speed", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return speed.native(module), module


BUILT = built()


@pytest.fixture(params=["python", "c"])
def kit(request: pytest.FixtureRequest) -> speed.Kit:
    """Either implementation."""
    if request.param == "python":
        return speed.PYTHON
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    return BUILT[0]


@pytest.fixture
def c() -> speed.Kit:
    """The C implementation."""
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    return BUILT[0]


def encoded(kit: speed.Kit, kind: str, value: object, dialect: speed.Dialect = "pgtext") -> bytes:
    text = kit.encode_rows([(value,)], kind.encode(), dialect)
    assert text.endswith(b"\n")
    return text[:-1]


def rendered(kit: speed.Kit, kind: str, value: object) -> bytes | None:
    return kit.render_rows([(value,)], kind.encode())[0][0]


# ------------------------------------------------------------------------------------------------------------------ loading


@pytest.mark.parametrize(
    ("kind", "value", "pg", "my"),
    [
        ("i", 0, b"0", b"0"),
        ("i", -(2**63), b"-9223372036854775808", b"-9223372036854775808"),
        ("i", 2**64, b"18446744073709551616", b"18446744073709551616"),
        ("i", -(10**40), b"-1" + b"0" * 40, b"-1" + b"0" * 40),
        ("i", True, b"1", b"1"),
        ("f", 0.1, b"0.1", b"0.1"),
        ("f", 0.1 + 0.2, b"0.30000000000000004", b"0.30000000000000004"),
        ("f", -0.0, b"-0.0", b"-0.0"),
        ("f", 3.0, b"3.0", b"3.0"),
        ("f", -1234.56, b"-1234.56", b"-1234.56"),
        ("f", 1e16, b"1e+16", b"1e+16"),
        ("f", 999999999999999.9, b"999999999999999.9", b"999999999999999.9"),
        ("f", 0.0001, b"0.0001", b"0.0001"),
        ("f", 0.00001, b"1e-05", b"1e-05"),
        ("f", 5e-324, b"5e-324", b"5e-324"),
        ("f", 1.7976931348623157e308, b"1.7976931348623157e+308", b"1.7976931348623157e+308"),
        ("f", 7, b"7", b"7"),
        ("f", NAN, b"NaN", ValueError),
        ("f", INF, b"Infinity", ValueError),
        ("f", -INF, b"-Infinity", ValueError),
        ("f", 2**53 + 1, ValueError, ValueError),
        ("f", 10**400, ValueError, ValueError),
        ("f", "0.1", ValueError, ValueError),
        ("v", True, b"1", b"1"),
        ("v", 0, b"0", b"0"),
        ("v", 2, ValueError, ValueError),
        ("v", -1, ValueError, ValueError),
        ("v", 2**70, ValueError, ValueError),
        ("s", "", b"", b""),
        ("s", "NULL", b"NULL", b"NULL"),
        ("s", r"\N", rb"\\N", rb"\\N"),
        ("s", "a\tb\nc\rd\\e", rb"a\tb\nc\rd\\e", rb"a\tb\nc\rd\\e"),
        ("s", "\b\f\v\x7f'\"", b"\b\f\v\x7f'\"", b"\b\f\v\x7f'\""),
        ("s", "é€😀", "é€😀".encode(), "é€😀".encode()),
        ("s", "a\0b", ValueError, rb"a\0b"),
        ("s", "\ud800", ValueError, ValueError),
        ("s", b"a", ValueError, ValueError),
        ("s", 1, ValueError, ValueError),
        ("r", b"a\\\xff", b"a\\\\\xff", b"a\\\\\xff"),
        ("r", bytearray(b"\t"), rb"\t", rb"\t"),
        ("r", b"\0", ValueError, rb"\0"),
        ("r", "a", ValueError, ValueError),
        ("t", "2024-01-01", b"2024-01-01", b"2024-01-01"),
        ("t", b"1.50", b"1.50", b"1.50"),
        ("t", bytearray(b"x"), b"x", b"x"),
        ("t", 1, ValueError, ValueError),
        ("b", b"", rb"\\x", b""),
        ("b", b"\x00\xfe\n", rb"\\x00fe0a", b"00fe0a"),
        ("b", memoryview(b"\x01"), rb"\\x01", b"01"),
        ("b", "01", ValueError, ValueError),
        ("n", 12, b"12", b"12"),
        ("n", 2.5, b"2.5", b"2.5"),
        ("n", "1.50\t", rb"1.50\t", rb"1.50\t"),
        ("n", b"7", b"7", b"7"),
        ("n", NAN, b"NaN", ValueError),
        ("n", [], ValueError, ValueError),
        ("w", "2024-02-30T10:00:00.5", b"2024-02-30 10:00:00.5", b"2024-02-30 10:00:00.5"),
        ("w", "2024-02-30 10:00:00Z", ValueError, ValueError),
        ("w", "2024-02-30", ValueError, ValueError),
        ("z", b"2024-02-30T10:00:00.Z", ValueError, ValueError),
        ("z", "2024-02-30T10:00:00Z", b"2024-02-30 10:00:00", b"2024-02-30 10:00:00"),
        ("z", "2024-02-30T10:00:00+01", ValueError, ValueError),
        ("Z", b"2024-02-30T10:00:00Z", ValueError, ValueError),
        ("S", b"a", ValueError, ValueError),
        ("S", "a\t", rb"a\t", rb"a\t"),
        ("N", b"7", ValueError, ValueError),
        ("N", "7", b"7", b"7"),
        ("o", 1, ValueError, ValueError),
    ],
)
def test_load_text(kit: speed.Kit, kind: str, value: object, pg: object, my: object) -> None:
    dialects: list[tuple[speed.Dialect, object]] = [("pgtext", pg), ("mytext", my)]
    for dialect, expected in dialects:
        if expected is ValueError:
            with pytest.raises(ValueError):  # noqa: PT011
                encoded(kit, kind, value, dialect)
        else:
            assert encoded(kit, kind, value, dialect) == expected


@pytest.mark.parametrize("kind", "ifsbrtnv")
def test_null_in_every_kind(kit: speed.Kit, kind: str) -> None:
    assert encoded(kit, kind, None) == encoded(kit, kind, None, "mytext") == rb"\N"


def own(value: object) -> bytes:
    if value == 13:
        raise ValueError("no luck")
    return b"<%s>" % repr(value).encode()


def test_a_columns_own_function_has_the_odd_values(kit: speed.Kit) -> None:
    plain, odd = [(1, "a", None)], [(1, b"a", 2.5)]
    assert kit.encode_rows(odd, b"iSo", "pgtext", (own, own, own)).split(b"\t")[1:] == [b"<b'a'>", b"<2.5>\n"]
    assert kit.render_rows(odd, b"iSo", (own, own, own))[0][1:] == (b"<b'a'>", b"<2.5>")
    assert kit.render_rows(plain, b"iSo", (speed._load_int, speed._str, own)) == [(b"1", b"a", None)]
    lanes = Accumulator().lanes
    with pytest.raises(ValueError, match="no luck"):
        kit.digest_rows([(1,), (13,)], b"o", lanes, (own,))
    assert not any(lanes)
    with pytest.raises(ValueError, match="2 functions for 1 columns"):
        kit.render_rows([(1,)], b"i", (own, own))


def test_rows_and_columns_are_separated(kit: speed.Kit) -> None:
    rows = [(1, "a", None), (2, "", b"\x01")]
    assert kit.encode_rows(rows, b"isb", "pgtext") == b"1\ta\t\\N\n2\t\t\\\\x01\n"
    assert kit.encode_rows([], b"isb", "pgtext") == b""
    assert kit.encode_rows([(), ()], b"", "mytext") == b"\n\n"
    assert kit.encode_rows(([1], [2]), b"i", "pgtext") == b"1\n2\n"  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [[(1,)], [(1, 2, 3)], [(1, 2), ()]])
def test_width_is_checked(kit: speed.Kit, rows: list[Any]) -> None:
    for call in (
        lambda: kit.encode_rows(rows, b"ii", "pgtext"),
        lambda: kit.render_rows(rows, b"ii"),
        lambda: kit.digest_rows(rows, b"ii", Accumulator().lanes),
    ):
        with pytest.raises(ValueError, match="for 2 columns"):
            call()


@pytest.mark.parametrize("kinds", [b"x", b"iq", b"\0", b"\xff"])
def test_unknown_kinds_are_refused(kit: speed.Kit, kinds: bytes) -> None:
    for call in (
        lambda: kit.encode_rows([], kinds, "pgtext"),
        lambda: kit.render_rows([], kinds),
        lambda: kit.digest_rows([], kinds, Accumulator().lanes),
    ):
        with pytest.raises(ValueError, match="unknown kind"):
            call()
    with pytest.raises(ValueError, match="unknown dialect"):
        kit.encode_rows([], b"i", "csv")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- canonical texts


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("i", -5, b"-5"),
        ("i", 10**30, b"1" + b"0" * 30),
        ("i", False, b"0"),
        ("i", "5", ValueError),
        ("v", 1, b"1"),
        ("v", False, b"0"),
        ("v", 5, ValueError),
        ("f", -0.0, b"-0"),
        ("f", 0.0, b"0"),
        ("f", 1.0, b"1"),
        ("f", 0.5, b"0.5"),
        ("f", 1e22, b"1" + b"0" * 22),
        ("f", 1e-7, b"0.0000001"),
        ("f", 1.5e300, b"15" + b"0" * 299),
        ("f", 5e-324, b"0." + b"0" * 323 + b"5"),
        ("f", NAN, b"NaN"),
        ("f", -INF, b"-Infinity"),
        ("f", b"1e20", b"1" + b"0" * 20),
        ("f", "0.10", b"0.1"),
        ("f", "-0", b"-0"),
        ("f", "nan", b"NaN"),
        ("f", "inf", b"Infinity"),
        ("f", "1e400", ValueError),
        ("f", b"-1e400", ValueError),
        ("f", "", ValueError),
        ("f", "1e", ValueError),
        ("f", b"x", ValueError),
        ("f", 2**53 + 1, ValueError),
        ("f", 10**400, ValueError),
        ("s", "é\0\n", "é\0\n".encode()),
        ("s", "\udfff", ValueError),
        ("s", b"", ValueError),
        ("r", b"\xff", b"\xff"),
        ("r", "", ValueError),
        ("t", "a", b"a"),
        ("t", b"a", b"a"),
        ("b", b"\x0f", b"0f"),
        ("b", "a", ValueError),
        ("d", "1.50", b"1.5"),
        ("d", b"-00.10", b"-0.1"),
        ("d", "-0.000", b"0"),
        ("d", "+5.", b"5"),
        ("d", ".5", b"0.5"),
        ("d", "1E+3", b"1000"),
        ("d", "12.5e-3", b"0.0125"),
        ("d", "1e-5000", b"0." + b"0" * 4999 + b"1"),
        ("d", "123456789.987654321" * 60, ValueError),
        ("d", "9" * 1000 + ".10", b"9" * 1000 + b".1"),
        ("d", -0.0, b"0"),
        ("d", 1e16, b"10000000000000000"),
        ("d", 7, b"7"),
        ("d", Decimal("1.2300"), b"1.23"),
        ("d", Decimal("1E+2"), b"100"),
        ("d", "NaN", b"NaN"),
        ("d", NAN, b"NaN"),
        ("d", "-inf", b"-Infinity"),
        ("d", " 1.0 ", ValueError),
        ("d", ".", ValueError),
        ("d", "", ValueError),
        ("d", "1e", ValueError),
        ("d", "1x", ValueError),
        ("d", "1e999999999999999999999", ValueError),
        ("z", "2024-02-29 10:20:30.120000", b"2024-02-29 10:20:30.12"),
        ("z", "2024-02-29T10:20:30.000Z", b"2024-02-29 10:20:30"),
        ("z", b"2024-02-29 10:20:30Z", b"2024-02-29 10:20:30"),
        ("z", "2024-02-29", b"2024-02-29 00:00:00"),
        ("z", "2024-02-29 10:20", b"2024-02-29 10:20:00"),
        ("z", "2024-02-29 10:20:30+02:00", b"2024-02-29 08:20:30"),
        ("z", "12024-02-29 10:20:30.5", b"12024-02-29 10:20:30.5"),
        ("z", "0044-03-15 12:00:00 BC", b"0044-03-15 12:00:00 BC"),
        ("z", "infinity", b"infinity"),
        ("z", "0000-00-00 00:00:00", b"0000-00-00 00:00:00"),
        ("z", "2024-02-29 10:20:30.", ValueError),
        ("z", "2024-02-29 1x:20:30", ValueError),
        ("z", "2024-13-01 10:20:30", ValueError),
        ("z", "2024-12-32 10:20:30", ValueError),
        ("z", "2024-12-31 24:20:30", ValueError),
        ("z", "2024-12-31 23:60:30", ValueError),
        ("z", "2024-12-31 23:59:60", ValueError),
        ("z", "yesterday", ValueError),
        ("z", 5, ValueError),
        ("k", "10:20:30.500000", b"10:20:30.5"),
        ("k", b"-838:59:59.000", b"-838:59:59"),
        ("k", "012:00", b"12:00:00"),
        ("k", "10:20:3", ValueError),
        ("y", 5, b"i:5"),
        ("y", 2**70, b"i:1180591620717411303424"),
        ("y", 1.50, b"r:1.5"),
        ("y", -0.0, b"r:-0"),
        ("y", NAN, b"r:NaN"),
        ("y", "a", b"t:a"),
        ("y", b"a", b"b:61"),
        ("y", "\ud800", ValueError),
        ("y", [], ValueError),
        ("j", "[]", b"[]"),
        ("j", b' { "b" : 1.50 , "a" : [ true , null , "x" ] } ', b'{"a":[true,null,"x"],"b":1.5}'),
        ("j", '{"a":1,"a":2,"A":3}', b'{"A":3,"a":2}'),
        ("j", '{"a":{"z":1,"b":{"d":1,"c":2}},"":0}', b'{"":0,"a":{"b":{"c":2,"d":1},"z":1}}'),
        ("j", '{"aa":1,"a":2,"a!":3}', b'{"a":2,"a!":3,"aa":1}'),
        ("j", '{"\\u00e9":1,"z":2,"\\ud83d\\ude00":3,"\uffff":4}', '{"z":2,"é":1,"\uffff":4,"😀":3}'.encode()),
        ("j", '{"a\\"b":1,"a!":2}', b'{"a!":2,"a\\"b":1}'),
        ("j", '"\\/\\u0041\\u0000\\u001f\\b\\n\\u000a\\u007f\\u2028"', b'"/A\\u0000\\u001f\\b\\n\\n\x7f\xe2\x80\xa8"'),
        ("j", "1E400", b"1" + b"0" * 400),
        ("j", "1e400000", b"1e400000"),
        ("j", "-0.0", b"0"),
        ("j", "12345678901234567890123.4500", b"12345678901234567890123.45"),
        ("j", 5, b"5"),
        ("j", 0.5, b"0.5"),
        ("j", "[" * 200 + "]" * 200, b"[" * 200 + b"]" * 200),
        ("j", "[" * 3000 + "]" * 3000, b"[" * 3000 + b"]" * 3000),
        ("j", "1" + "0" * 30_000, b"1e30000"),
        ("j", '"\\ud800"', b'"\\ud800"'),
        ("j", '"\ud800"', b'"\\ud800"'),
        ("j", '{"\\ud800":1,"\\uffff":2}', b'{"\\ud800":1,"\xef\xbf\xbf":2}'),
        ("j", b'"\xff"', ValueError),
        ("j", '"\n"', ValueError),
        ("j", '{"a":1,}', ValueError),
        ("j", '{,"a":1}', ValueError),
        ("j", "[1,]", ValueError),
        ("j", "[,1]", ValueError),
        ("j", "[1 2]", ValueError),
        ("j", "01", ValueError),
        ("j", "1.", ValueError),
        ("j", "tru", ValueError),
        ("j", "[1]x", ValueError),
        ("j", '"\\x"', ValueError),
        ("j", '"\\u00"', ValueError),
        ("j", "", ValueError),
        ("j", "{", ValueError),
        ("j", '{"a"', ValueError),
        ("j", '{"a":', ValueError),
        ("j", "[", ValueError),
        ("j", '"abc\\', ValueError),
        ("w", "2024-01-31T10:00:00.500", b"2024-01-31 10:00:00.5"),
        ("w", "2024-01-31 10:00:00Z", ValueError),
        ("w", "infinity", b"infinity"),
        ("a", "2024-01-31", b"2024-01-31"),
        ("a", "0044-03-15 BC", b"0044-03-15 BC"),
        ("a", "2024-01-31 00:00:00", ValueError),
        ("a", "2024-13-31", ValueError),
        ("u", "12345678-1234-1234-1234-1234567890AB", b"12345678-1234-1234-1234-1234567890ab"),
        ("u", "12345678-1234-1234-1234-1234567890ab", b"12345678-1234-1234-1234-1234567890ab"),
        ("u", "12345678-1234-1234-1234-1234567890a", ValueError),
        ("U", b"12345678-1234-1234-1234-1234567890ab", ValueError),
        ("D", b"1.50", ValueError),
        ("D", "1.50", b"1.5"),
        ("F", b"1.5", ValueError),
        ("Y", b"a", ValueError),
        ("J", b"1", ValueError),
        ("o", "a", ValueError),
    ],
)
def test_canonical_text(kit: speed.Kit, kind: str, value: object, expected: object) -> None:
    if expected is ValueError:
        with pytest.raises(ValueError):  # noqa: PT011
            rendered(kit, kind, value)
    else:
        assert rendered(kit, kind, value) == expected
    assert rendered(kit, kind, None) is None


def test_digests_are_those_of_the_definition(kit: speed.Kit) -> None:
    rows = [(i, None if i % 7 == 0 else "x" * (i * 3), i / 8, bytes([i % 256]) * (i % 5)) for i in range(300)]
    sums, expected = Accumulator(), Accumulator()
    assert kit.digest_rows(rows, b"isfb", sums.lanes) == 300
    for i, text, number, octets in rows:
        fields = [codec.canonical(f, v) for f, v in zip(
            (Form.INT, Form.TEXT, Form.FLOAT, Form.BYTES), (i, text, number, octets), strict=True)]  # fmt: skip
        expected.add_digest(row_digest(fields))
    assert sums.fingerprint() == expected.fingerprint()
    assert sums.fingerprint().total.count == 300


def test_long_and_empty_lines(kit: speed.Kit) -> None:
    lines = [bytes(range(256)) * 9, *(b"x" * n for n in range(140)), b"y" * 100_000]
    lanes = Accumulator().lanes
    assert kit.digest_lines(lines, lanes) == len(lines)
    expected = Accumulator()
    for text in lines:
        expected.add_digest(hashlib.sha256(text).digest()[:16])
    assert lanes == expected.lanes


def test_portable_sha_equals_the_processors(c: speed.Kit) -> None:
    assert not isinstance(BUILT, str)
    module = BUILT[1]
    had = module.sha_ni()
    try:
        lines = [os.urandom(n) for n in range(300)]
        lanes = []
        for wanted in (False, True):
            assert module.sha_ni(wanted) == (had and wanted)
            lanes.append(Accumulator().lanes)
            c.digest_lines(lines, lanes[-1])
    finally:
        module.sha_ni(True)
    assert lanes[0] == lanes[1]


def test_a_bad_row_adds_nothing(kit: speed.Kit) -> None:
    lanes = Accumulator().lanes
    with pytest.raises(ValueError, match="cannot hold"):
        kit.digest_rows([(1,), ("a",)], b"i", lanes)
    with pytest.raises(TypeError):
        kit.digest_lines([b"a", "b"], lanes)  # type: ignore[list-item]
    assert not any(lanes)


def test_sums_of_another_shape_are_refused(c: speed.Kit) -> None:
    for lanes in (array("Q", [0, 0, 0]), array("B", bytes(8))):
        with pytest.raises(ValueError, match="4096 triples"):
            c.digest_rows([(1,)], b"i", lanes)
    with pytest.raises(BufferError):
        c.digest_rows([(1,)], b"i", bytes(3 * 8 * 4096))  # type: ignore[arg-type]


def test_accumulator_wraps_and_keeps_its_interface() -> None:
    sums = Accumulator()
    digest = b"\xff" * 16
    sums.add_digest(digest)
    sums.add_digest(digest)
    sums.add_sums({4095: Sum(1, 3, 5), 7: Sum(2, 1, 1)})
    assert sums.fingerprint() == Fingerprint({4095: Sum(3, 1, 3), 7: Sum(2, 1, 1)})
    rows = [(b"a", None), (b"", b"b")] * 3000
    by_rows = Accumulator()
    assert by_rows.add_rows(rows) == 6000
    one = line(rows[0])
    bucket = bucket_of(row_digest(rows[0]))
    assert by_rows.fingerprint().buckets[bucket].count == 3000
    assert Accumulator().add_lines(x for x in [one, b"z" * 300_000, one]) == 3


# ---------------------------------------------------------------------------------------------------------- choice and build


def _implementation(**environment: str) -> str:
    code = "from dblens.values import speed; print(speed.implementation)"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()


def test_environment_forces_python() -> None:
    assert _implementation(DBLENS_PURE="1") == "python"


def test_build_says_why_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(BUILT, str):
        pytest.skip(BUILT)
    broken = tmp_path / "broken.c"
    broken.write_text("#error no")
    with pytest.raises(hatch_build.NotBuilt, match="compiling failed"):
        hatch_build.build(broken, tmp_path / "x.so")
    broken.write_text("int PyInit_other;")
    with pytest.raises(hatch_build.NotBuilt, match="loading what was compiled failed"):
        hatch_build.build(broken, tmp_path / "x.so")
    assert list(tmp_path.glob("*.so")) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("hatch_build.sysconfig.get_config_var", lambda _: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(hatch_build.NotBuilt, match="no C compiler"):
        hatch_build.build(broken, tmp_path / "x.so")
