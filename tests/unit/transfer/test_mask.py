"""Masks: two implementations of one definition, and what a copy with them looks like."""

from __future__ import annotations

import hashlib
import hmac
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dblens.engines.base import Chunk, Field
from dblens.errors import InvalidInput, Unsupported
from dblens.schema.model import Column
from dblens.schema.types import Boolean, DataType, Date, Float, Integer, Text
from dblens.transfer.copy import TableCopy, choose_format, copy_range
from dblens.transfer.mask import Mask, expectation, key_id, masked_type, masker
from dblens.transfer.verify import verify_table
from dblens.values.codec import canonical
from dblens.values.forms import Form
from tests.unit.transfer.fakes import Reader, Writer, side, table

KEY = b"the key of this test"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
KINDS = st.sampled_from(["hash", "redact", "partial", "null"])
TARGETS: st.SearchStrategy[DataType] = st.one_of(
    st.builds(Text, st.none() | st.integers(1, 80)),
    st.builds(Integer, st.sampled_from([8, 16, 24, 32, 64]), st.booleans()),
)


def _mask(kind: str, key: bytes = KEY) -> Mask:
    return Mask(kind=kind, key_id=key_id(key) if kind == "hash" else None)  # type: ignore[arg-type]


@given(KINDS, TARGETS, st.none() | TEXTS, st.binary(max_size=200))
def test_copier_and_verifier_agree(kind: str, type: DataType, text: str | None, key: bytes) -> None:
    mask = _mask(kind, key)
    stored = masked_type(mask, type)
    copied = masker(mask, stored, key)(text)
    expected = expectation(mask, stored, key)(None if text is None else text.encode())
    form = Form.INT if isinstance(copied, int) else Form.TEXT
    assert canonical(form, copied) == expected


@given(TARGETS, TEXTS)
def test_a_masked_value_fits_its_column(type: DataType, text: str) -> None:
    value = masker(_mask("hash"), masked_type(_mask("hash"), type), KEY)(text)
    match type:
        case Integer(bits=bits):
            assert isinstance(value, int)
            assert 0 <= value < 2 ** (bits - 1)
        case Text(length=length):
            assert isinstance(value, str)
            assert len(value) == min(32, length or 32)


@given(TEXTS, TEXTS)
def test_equal_stays_equal_and_different_different(a: str, b: str) -> None:
    hashed = masker(_mask("hash"), Text(), KEY)
    assert (hashed(a) == hashed(b)) == (a == b)


@given(KINDS)
def test_null_stays_null(kind: str) -> None:
    assert masker(_mask(kind), Text(), KEY)(None) is None
    assert expectation(_mask(kind), Text(), KEY)(None) is None


def test_the_definition_by_hand() -> None:
    whole = hmac.new(KEY, b"42", hashlib.sha256).digest()
    assert masker(_mask("hash"), Text(), KEY)("42") == whole.hex()[:32]
    assert masker(_mask("hash"), Text(8), KEY)("42") == whole.hex()[:8]
    assert masker(_mask("hash"), Integer(32), KEY)("42") == int.from_bytes(whole[:8], "big") % 2**31
    assert masker(_mask("redact"), Text(), None)("secret") == "REDACTED"
    assert masker(_mask("redact"), Text(3), None)("secret") == "RED"
    partial = masker(_mask("partial"), Text(), None)
    assert [partial(t) for t in ("", "a", "abcd", "abcde", "zoë@x")] == ["", "*", "****", "a***e", "z***x"]
    assert masker(_mask("null"), Text(), None)("secret") is None


def test_the_type_a_masked_column_takes() -> None:
    assert masked_type(_mask("hash"), Integer(32)) == Integer(32)
    assert masked_type(_mask("hash"), Text(5)) == Text(5)
    assert masked_type(_mask("hash"), Date()) == Text(32)
    assert masked_type(_mask("redact"), Integer(32)) == Text(None)
    assert masked_type(_mask("partial"), Float()) == Text(None)
    assert masked_type(_mask("null"), Boolean()) == Boolean()


@pytest.mark.parametrize("key", [None, b"", b"another key"])
def test_another_key_is_refused(key: bytes | None) -> None:
    for make in (masker, expectation):
        with pytest.raises(InvalidInput, match="mask key") as refused:
            make(_mask("hash"), Text(), key)
        assert KEY.decode() not in str(refused.value)
        assert refused.value.hint
        make(_mask("redact"), Text(), key)


def test_a_key_id_tells_keys_apart_and_nothing_more() -> None:
    assert key_id(KEY) == key_id(bytes(KEY))
    assert key_id(KEY) != key_id(KEY + b"\0")
    assert len(key_id(KEY)) == 8


# ------------------------------------------------------------------------------------------------------- copying with masks


def _job(masks: dict[str, Mask], *forms: Form) -> TableCopy:
    names = [f"c{i}" for i in range(len(forms))]
    types: dict[Form, DataType] = {Form.INT: Integer(), Form.DECIMAL: Text(32), Form.TEXT: Text()}
    shape = tuple(
        Field(
            column=Column(name=f"source of {name}", type=types[form], native="x"),
            form=form,
            target=Column(name=name, type=types[form], native="y"),
        )
        for name, form in zip(names, forms, strict=True)
    )
    return TableCopy(source=table(*names), target=table(*names), place=("n", "t"), fields=shape, masks=masks)


def test_a_copy_masks_on_the_way_by_canonical_text() -> None:
    """1.50 and 1.5 are one value, so they get one hash; other columns pass untouched; the verifier agrees."""
    rows = [(1, "1.50", "a"), (2, "1.5", None), (3, "-0.00", "a"), (4, None, "b")] * 5
    reader, writer = Reader(rows), Writer()
    job = _job({"c1": _mask("hash")}, Form.INT, Form.DECIMAL, Form.TEXT)
    chunk = Chunk(run="r", table=("n", "t"), number=0)
    assert copy_range(reader, writer, job, chunk, mask_key=KEY) == 20  # type: ignore[arg-type]
    assert reader.closed
    values = {row[0]: row[1] for row in writer.stored}
    assert values[1] == values[2] != values[3]
    assert values[4] is None
    assert [(r[0], r[2]) for r in writer.stored] == [(r[0], r[2]) for r in rows]
    right = tuple(
        Field(column=f.target or f.column, form=Form.TEXT if f.form == Form.DECIMAL else f.form) for f in job.fields
    )
    verdict = verify_table("t", side(reader, job.fields), side(writer, right), masks=job.masks, mask_key=KEY)
    assert verdict.equal, verdict
    writer.stored[0] = (1, "0" * 32, "a")
    verdict = verify_table("t", side(reader, job.fields), side(writer, right), masks=job.masks, mask_key=KEY)
    assert not verdict.equal


def test_masks_need_rows_and_say_so() -> None:
    reader = Reader([(1,)], formats=("pgbinary", "rows"))
    plain, masked = _job({}, Form.INT), _job({"c0": _mask("redact")}, Form.INT)
    both = Writer(formats=("pgbinary", "rows"))
    assert choose_format(reader, both, plain) == "pgbinary"  # type: ignore[arg-type]
    assert choose_format(reader, both, masked) == "rows"  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="no common format"):
        choose_format(reader, Writer(formats=("bson",)), masked)  # type: ignore[arg-type]


def test_a_load_that_fails_closes_the_export() -> None:
    reader = Reader([(i,) for i in range(5000)])
    with pytest.raises(OSError, match="disk"):
        copy_range(reader, Writer(fail_after=2), _job({}, Form.INT), Chunk(run="r", table=("n", "t"), number=0))  # type: ignore[arg-type]
    assert reader.closed
    assert not [t for t in threading.enumerate() if t.name == "dblens-producer"]
