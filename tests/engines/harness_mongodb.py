"""The Mongo-wire server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from bson import Decimal128, Int64
from pymongo import MongoClient

from dblens.engines.base import Check
from tests.engines import harness
from tests.engines.harness import CheckCase, Gap, text_key

_NO_SQL = Gap("never", "it speaks no SQL; test_mongodb_ask.py asks it in its own language")


class Harness(harness.Harness):
    name, engine, server = "mongodb", "mongodb", "mongo"
    EXPECTED_GAPS: ClassVar[Mapping[str, Gap]] = {
        "test_connect.py::test_wrong_password": Gap("never", "the session's test server asks nobody for a password"),
        "test_connect.py::test_missing_database": Gap("never", "a database comes into being with its first collection"),
        "test_edits.py::test_every_value_exactly": _NO_SQL,
        "test_edits.py::test_a_value_that_would_be_stored_otherwise_is_refused": _NO_SQL,
        "test_edits.py::test_names_are_hostile": _NO_SQL,
        "test_edits.py::test_other_types_exactly": _NO_SQL,
        "test_edits.py::test_rows_that_follow_are_told": _NO_SQL,
        "test_edits.py::test_without_a_key_all_values_match_and_only_one_row": _NO_SQL,
        "test_edits.py::test_a_unique_key_without_null_is_a_key": _NO_SQL,
        "test_edits.py::test_generated_columns_and_numbered_keys": _NO_SQL,
        "test_edits.py::test_a_trigger_does_not_change_the_count": _NO_SQL,
        "test_edits.py::test_views_are_not_changed": _NO_SQL,
        "test_compare.py::test_equal_values_are_equal_whatever_stores_them": _NO_SQL,
        "test_compare.py::test_rows_that_differ_are_named": _NO_SQL,
        "test_compare.py::test_rows_that_are_there_twice_count_twice": _NO_SQL,
        "test_compare.py::test_a_translation_is_shown_and_no_proof": _NO_SQL,
        "test_asks.py::test_columns_and_rows": _NO_SQL,
        "test_asks.py::test_values_are_exact": _NO_SQL,
        "test_asks.py::test_values_out_of_parameters": _NO_SQL,
        "test_asks.py::test_a_parameter_too_many_or_too_few_is_invalid": _NO_SQL,
        "test_asks.py::test_names_of_columns": _NO_SQL,
        "test_asks.py::test_equal_names_of_columns_are_both_kept": _NO_SQL,
        "test_asks.py::test_an_empty_answer_has_columns": _NO_SQL,
        "test_asks.py::test_a_huge_statement": _NO_SQL,
        "test_asks.py::test_batches_are_bounded_in_rows": _NO_SQL,
        "test_asks.py::test_batches_are_bounded_in_octets": _NO_SQL,
        "test_asks.py::test_streaming_holds_no_memory": _NO_SQL,
        "test_asks.py::test_a_cell_over_the_cap_is_named": _NO_SQL,
        "test_asks.py::test_the_deadline_is_that_of_the_whole_statement": _NO_SQL,
        "test_asks.py::test_the_deadline_counts_between_batches_too": _NO_SQL,
        "test_asks.py::test_cancel_stops_what_runs": _NO_SQL,
        "test_asks.py::test_cancel_between_batches": _NO_SQL,
        "test_asks.py::test_cancel_of_nothing_stops_nothing": _NO_SQL,
        "test_asks.py::test_leaving_early_frees_the_session": _NO_SQL,
        "test_asks.py::test_read_only_refuses": _NO_SQL,
        "test_asks.py::test_writing_is_committed_and_counted": _NO_SQL,
        "test_asks.py::test_a_transaction_is_kept_or_rolled_back": _NO_SQL,
        "test_asks.py::test_transactions_are_begun_once_and_ended_once": _NO_SQL,
        "test_asks.py::test_a_read_only_transaction_refuses_and_sees_one_state": _NO_SQL,
        "test_asks.py::test_one_statement_only": _NO_SQL,
        "test_asks.py::test_statements_manage_no_transactions": _NO_SQL,
        "test_asks.py::test_a_mistake_is_told_and_does_no_harm": _NO_SQL,
        "test_asks.py::test_no_statement_is_told": _NO_SQL,
        "test_asks.py::test_a_tag_cannot_become_a_statement": _NO_SQL,
        "test_asks.py::test_a_plan_is_a_tree": _NO_SQL,
        "test_asks.py::test_a_plan_of_a_change_changes_nothing": _NO_SQL,
    }
    UNNAMEABLE = frozenset({"$1"})
    KEYS: ClassVar[Mapping[str, Sequence[str]]] = {"k_int": ("_id",), "k_pair": ("_id",), "k_text": ("_id",)}
    CHECKS: ClassVar[Sequence[CheckCase]] = (
        CheckCase(Check(kind="nul_character"), "string", ("a", "a\0b", "", None), (1,)),
        CheckCase(Check(kind="nonfinite"), "double", (float("nan"), float("inf"), 0.5, None), (0, 1)),
        CheckCase(Check(kind="negative_zero"), "double", (-0.0, 0.0, 1.5, None), (0,)),
        CheckCase(Check(kind="too_long", limit=3), "string", ("abc", "abcd", "ééé", "", None), (1,)),
        CheckCase(Check(kind="trailing_space"), "string", ("a", "a ", " ", " a", "", None), (1, 2)),
        CheckCase(Check(kind="four_byte_text"), "string", ("a", "😀", "日", None), (1,)),
        CheckCase(
            Check(kind="outside_integers", low="0", high="100"), "long", (Int64(-1), Int64(0), Int64(101), None), (0, 2)
        ),
    )

    def _database(self, url: str) -> Any:
        client: MongoClient[dict[str, Any]] = MongoClient(url, directConnection=True)
        return client[url.partition("?")[0].rpartition("/")[2]]

    def _fill(self, url: str, collection: str, documents: Sequence[dict[str, Any]]) -> None:
        database = self._database(url)
        if documents:
            database[collection].insert_many(documents)
        else:
            database.create_collection(collection)
        database.client.close()

    def sample(self, url: str) -> None:
        day = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        self._fill(
            url,
            "person",
            [
                {
                    "_id": 1,
                    "name": "Ada",
                    "email": "ada@example.org",
                    "score": 0.1,
                    "balance": Decimal128("10.50"),
                    "seen": day,
                },
                {"_id": 2, "name": "Björn", "score": -0.0, "balance": Decimal128("100"), "photo": b""},
                {
                    "_id": 3,
                    "name": "日本 \\ tab\t nl\n",
                    "email": "x",
                    "score": 1e300,
                    "tags": ["a", 1, None],
                    "photo": b"\0\xff",
                },
                {"_id": 4, "name": "", "email": "", "note": None, "home": {"city": "X", "a.b": 1}},
                {"_id": 5, "name": "trail ", "email": "é", "score": 1, "big": Int64(2**63 - 1)},
            ],
        )
        self._fill(
            url,
            "purchase",
            [
                {"_id": {"person_id": 1, "line": 1}, "amount": Decimal128("9.99")},
                {"_id": {"person_id": 1, "line": 2}, "amount": Decimal128("0")},
                {"_id": {"person_id": 2, "line": 1}, "amount": Decimal128("5")},
            ],
        )
        self._fill(url, "plain", [{"a": 1, "b": "same"}, {"a": 1, "b": "same"}, {"a": 2, "b": None}])
        database = self._database(url)
        database["person"].create_index(
            "email", unique=True, name="person_email", partialFilterExpression={"email": {"$exists": True}}
        )
        database["person"].create_index([("name", -1)], name="person_name")
        database.create_collection("rich", viewOn="person", pipeline=[{"$match": {"score": {"$gt": 1}}}])
        database.client.close()

    def keyed(self, url: str, kind: str, rows: int, name: str | None = None) -> None:
        make: Callable[[int], dict[str, Any]] = {
            "k_int": lambda n: {"_id": n * 3 - 7, "v": n},
            "k_pair": lambda n: {"_id": {"a": n // 4 - 2, "b": text_key(n)}, "v": n},
            "k_text": lambda n: {"_id": text_key(n), "v": n},
        }[kind]
        self._fill(url, name or kind, [make(n) for n in range(1, rows + 1)])

    def column(self, url: str, table: str, native: str, literals: Sequence[object]) -> None:
        self._fill(url, table, [{"_id": n, "v": value} for n, value in enumerate(literals, 1)])

    def named(self, url: str, name: str) -> None:
        self._fill(url, name, [{"_id": 1, name: "x"}])

    def release(self, url: str) -> None:
        database = self._database(url)
        database.drop_collection("rich")
        database.client.close()

    def change(self, url: str, table: str) -> None:
        database = self._database(url)
        database[table].insert_one({"_id": 99, "name": "late"})
        database.client.close()
