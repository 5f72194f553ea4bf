"""The defences, one by one: what it is in the text of which file, what is there without it, and the test that must fail then.

`test_removed.py` applies each to a copy of the tree. `python -m tests.attacks.removed [ATTACK …]` does it by hand and prints a table.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("dblens", "tests", "flows", "notebooks", "pyproject.toml", "README.md", "hatch_build.py", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE")  # fmt: skip


@dataclass(frozen=True)
class Removal:
    """One defence of one attack."""

    attack: int
    file: str
    defence: str
    without: str
    test: str


R = Removal
_A, _E, _S, _W = "tests/accounts", "tests/engines", "tests/store", "tests/workspace"
_MINE = "tests/attacks"

REMOVALS: tuple[Removal, ...] = (
    # 1: another organization's things
    R(1, "dblens/store/teams.py", "sa.select(*columns(Team, t.teams)).where(t.teams.c.org_id == org_id)", "sa.select(*columns(Team, t.teams))",
      f"{_S}/test_isolation.py::test_another_organization_finds_nothing_and_changes_nothing[sqlite]"),
    R(1, "dblens/store/connections.py", "sa.select(*columns(Connection, t.connections)).where(t.connections.c.org_id == org_id)",
      "sa.select(*columns(Connection, t.connections))",
      f"{_S}/test_isolation.py::test_every_statement_names_the_organization[sqlite]"),
    R(1, "dblens/workspace/policy.py", "if org_id != principal.org_id:", "if False:",
      f"{_W}/test_matrix_live.py::test_the_gate_over_a_real_store[organization.members-admin]"),
    R(1, "dblens/workspace/policy.py", 'return _no("not_found", "it belongs to another organization")',
      'return _no("permission", "it belongs to another organization")',
      f"{_W}/test_matrix_live.py::test_the_gate_over_a_real_store[organization.members-admin]"),
    # 2: more than one's own rank
    R(2, "dblens/workspace/permissions.py", "if rank > actor.rank:", "if False:",
      f"{_W}/test_permissions.py::test_nobody_raises_themself"),
    R(2, "dblens/workspace/permissions.py", "if lacking:", "if False:",
      f"{_W}/test_permissions.py::test_every_actor_target_and_role"),
    R(2, "dblens/api/arguments.py",
      'wrong += [Rejected(field=_short(before + str(name)), message="unknown") for name in given if name not in kinds]',
      "wrong += []", f"{_MINE}/test_forged_requests.py::test_nobody_writes_a_field_that_is_not_theirs[role]"),
    # 3: a token that should be dead
    R(3, "dblens/store/sessions.py", "        s.revoked_at.is_(None),\n        s.expires_at > now,", "        s.expires_at > now,",
      f"{_MINE}/test_forged_requests.py::test_a_session_that_ended_is_dead_at_the_next_request"),
    R(3, "dblens/store/sessions.py", "        s.user_version == u.version,\n", "",
      f"{_S}/test_accounts.py::test_a_disabled_and_enabled_user_does_not_get_the_old_sessions_back[sqlite]"),
    # 4: forged JWTs
    R(4, "dblens/accounts/jwt.py", 'algorithms=["EdDSA"],', 'algorithms=["EdDSA", "none", "HS256"],',
      f"{_A}/test_jwt.py::test_alg_none"),
    R(4, "dblens/accounts/jwt.py", '"require": list(_CLAIMS),', '"require": [],', f"{_A}/test_jwt.py::test_every_claim_is_required"),
    # 5: a token for something else
    R(5, "dblens/accounts/jwt.py", 'if key is None or header.get("typ") != _TYPE:', "if key is None:",
      f"{_A}/test_jwt.py::test_a_token_for_something_else_signed_with_the_same_key"),
    R(5, "dblens/workspace/policy.py", "if principal.scopes is not None and not covers(principal.scopes, operation.permission):", "if False:",
      f"{_MINE}/test_forged_requests.py::test_a_token_scoped_for_less_does_less"),
    # 6: headers of proxies
    R(6, "dblens/api/server.py", "proxy_headers=bool(settings.trusted_proxies),\n        forwarded_allow_ips=list(settings.trusted_proxies),", "proxy_headers=True,\n        forwarded_allow_ips='*',",
      f"{_MINE}/test_forged_requests.py::test_dblens_serve_believes_no_proxy_that_it_does_not_know"),
    # 7: pages of other sites
    R(7, "dblens/api/edge.py", "            self._own_origin(Request(scope))\n", "",
      f"{_MINE}/test_forged_requests.py::test_a_page_of_another_origin_is_refused[null]"),
    R(7, "dblens/api/routes.py", 'if kind.strip().lower() != JSON or charset not in ("", "charset=utf-8"):', "if False:",
      f"{_MINE}/test_forged_requests.py::test_a_form_is_no_call[text/plain]"),
    # 8: somebody else's stream
    R(8, "dblens/api/app.py", "seen = await service.threads.run(lambda: events.watched(service.workspace(who), run_id))",
      "from dblens.workspace.principal import local\n        everybody = local('x', 'x', who.org_id or '')\n"
      "        seen = await service.threads.run(lambda: events.watched(service.workspace(everybody), run_id))",
      f"{_MINE}/test_forged_requests.py::test_progress_is_for_who_may_see_the_run"),
    R(8, "dblens/workspace/runs.py", 'if self._within(found) and (self._own(found) or grant != "none" or self._sees_all()):', "if True:",
      f"{_MINE}/test_forged_requests.py::test_progress_is_for_who_may_see_the_run"),
    # 9: guessing, and finding out who is there
    R(9, "dblens/accounts/lockout.py", "return user.locked_until is not None and user.locked_until > now", "return False",
      f"{_A}/test_login.py::test_five_failures_lock_and_the_right_password_does_not_work_meanwhile[sqlite]"),
    R(9, "dblens/accounts/passwords.py", "self.hasher.verify(hash or self._nobody, _bytes(password))",
      "hash and self.hasher.verify(hash, _bytes(password))",
      f"{_A}/test_login.py::test_known_unknown_locked_disabled_and_waiting_accounts_get_one_answer_for_one_hash[sqlite]"),
    # 10: reset links
    R(10, "dblens/accounts/recovery.py",
      'if tokens.take_reset_token(tx, hash, purpose="password", now=moment) != user.id:', "if False:",
      f"{_A}/test_recovery.py::test_of_two_resets_with_one_link_one_wins[sqlite]"),
    # 11: where a connection may lead
    R(11, "dblens/engines/access/guard.py", "    if face in METADATA:\n        return \"a cloud's metadata service\"\n", "",
      "tests/unit/access/test_guard.py::test_never"),
    R(11, "dblens/engines/access/guard.py", "    for address in addresses:\n        why = refusal(address, port, policy)",
      "    for address in addresses[:1]:\n        why = refusal(address, port, policy)",
      "tests/unit/access/test_guard.py::test_one_bad_address_among_good_ones_is_enough"),
    R(11, "dblens/engines/access/guard.py", "        yield address.ipv4_mapped\n", "        pass\n", "tests/unit/access/test_guard.py::test_denied_in_a_team"),
    # 12, 13: parameters in a URL
    R(12, "dblens/engines/access/params.py", "        if name is None:\n            low", "        if False:\n            low",
      "tests/unit/access/test_spec.py::test_a_hostile_url_is_refused"),
    R(13, "dblens/engines/access/params.py", '        "application_name": _word,', '        "application_name": _word, "passfile": _word,',
      "tests/unit/access/test_spec.py::test_a_parameter_that_is_not_on_the_list_is_named"),
    R(13, "dblens/engines/access/connect.py", '"passfile": _NOWHERE, ', "", f"{_E}/test_access.py::test_the_environment_of_libpq_is_ignored"),
    # 14: names that look like something else
    R(14, "dblens/engines/postgres/link.py", "**parameters(url, password, application), autocommit=True",
      "' '.join(f'{k}={v}' for k, v in parameters(url, password, application).items()), autocommit=True",
      f"{_E}/test_access.py::test_database_names_that_look_like_arguments"),
    # 15: a server that asks for a file
    R(15, "dblens/engines/mysql/driver.py", '"local_infile": False,', '"local_infile": True,',
      f"{_MINE}/test_rogue_mysql.py::test_a_rogue_server_gets_no_file"),
    R(15, "dblens/engines/mysql/driver.py", "autocommit=True, local_infile=0,", "autocommit=True, local_infile=1,",
      f"{_MINE}/test_rogue_mysql.py::test_a_rogue_server_gets_no_file"),
    # 16: a server that lies
    R(16, "dblens/engines/access/connect.py", '"require_auth": "scram-sha-256,md5,none"', '"require_auth": "scram-sha-256,md5,none,password"',
      f"{_E}/test_access.py::test_postgresql_is_never_told_the_password_in_clear"),
    # 18: what only reads, writes; what somebody else asked
    R(18, "dblens/workspace/queries.py", "ran = speech.said(found_params(params), bounds, write, read_only=True)",
      "ran = speech.said(found_params(params), bounds, write, read_only=False)", f"{_W}/test_queries.py::test_run_is_read_only_whatever_the_text"),
    R(18, "dblens/workspace/queries.py", "        speech.confirmed(values, confirm)\n", "", f"{_W}/test_queries.py::test_the_defaults_by_environment"),
    R(18, "dblens/workspace/speech.py", 'if self.rule() == "read_only":', "if False:", f"{_W}/test_queries.py::test_where_nothing_is_written"),
    R(18, "dblens/workspace/speech.py", "            principal.org_id,\n            principal.user_id,\n            self", "            self",
      f"{_W}/test_queries.py::test_a_confirmation_is_for_one_text_connection_and_person"),
    R(18, "dblens/workspace/talks.py", "found = self._queries.get((user_id, query))", "found = next((v for (_, q), v in self._queries.items() if q == query), None)",
      f"{_W}/test_queries.py::test_somebody_elses_query_is_nobodys"),
    R(18, "dblens/workspace/talks.py", "if found is not None and found.user_id == user_id:", "if found is not None:",
      f"{_W}/test_queries.py::test_somebody_elses_transaction_is_nobodys"),
    R(18, "dblens/workspace/queries.py", '"query.commit", permission="query.write", on="connection", locate=_of, ', '"query.commit", permission="query.write", on="organization", ',
      f"{_W}/test_queries.py::test_a_right_that_was_taken_away_ends_no_commit"),
    R(18, "dblens/workspace/asked.py", 'text = _PLAIN.sub("_", text', 'text = str(text', f"{_W}/test_queries.py::test_the_servers_log_says_who"),
    # 18, 31 on MySQL and MariaDB: read-only, one statement, cells
    R(18, "dblens/engines/mysql/ask_answer.py", "    while _CLOSING.search(tag):", "    while False:",
      f"{_E}/test_mysql_ask.py::test_the_tag_is_in_the_servers_list_and_cannot_be_closed[mariadb-pymysql]"),
    R(18, "dblens/engines/mysql/ask.py", "        if read_only:\n            ask_gate.reading(text)\n", "",
      f"{_MINE}/test_read_only_mysql.py::test_a_way_around_is_refused_and_changes_nothing"),
    R(18, "dblens/engines/mysql/ask.py", "{name} = {int(answer.read_only)}", "{name} = 0",
      f"{_MINE}/test_read_only_mysql.py::test_the_server_refuses_without_the_list_of_words"),
    R(18, "dblens/engines/mysql/ask_answer.py", "        if self.read_only and not done.in_read_only:", "        if False:",
      f"{_MINE}/test_read_only_mysql.py::test_the_aftercheck_sees_a_transaction_that_ended"),
    R(18, "dblens/engines/mysql/ask.py", "        ask_gate.managed(text, within=self._transaction is not None)\n", "",
      f"{_MINE}/test_read_only_mysql.py::test_the_gate_of_transactions_stands_alone"),
    R(18, "dblens/engines/mysql/session.py", "client_flag=CLIENT.FOUND_ROWS", "client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS",
      f"{_MINE}/test_read_only_mysql.py::test_the_protocol_takes_one_statement"),
    R(18, "dblens/engines/mysql/ask_gate.py", '    "INTO": "writes its rows into a file or variable",\n', "",
      f"{_MINE}/test_read_only_mysql.py::test_a_way_around_is_refused_and_changes_nothing"),
    R(18, "dblens/engines/mysql/ask_gate.py", "        if called and here.kind in (\"word\", \"name\"):", "        if called and here.kind == \"word\":",
      f"{_MINE}/test_read_only_mysql.py::test_a_way_around_is_refused_and_changes_nothing"),
    R(18, "dblens/engines/mysql/ask_login.py", '"SELECT", "USAGE",', '"SELECT", "EXECUTE", "USAGE",',
      f"{_MINE}/test_read_only_mysql.py::test_the_layers_tell_what_holds"),
    R(31, "dblens/engines/mysql/ask_wire.py", "    if size > cell:", "    if False:",
      f"{_E}/test_mysql_ask.py::test_a_huge_cell_is_refused_before_it_is_read[mariadb-pymysql]"),
    R(31, "dblens/engines/mysql/ask_answer.py", "        if text.startswith(_MARK) or str(", "        if str(",
      f"{_E}/test_mysql_ask.py::test_a_kill_for_another_statement_does_nothing"),
    # 17: names in statements
    R(17, "dblens/engines/postgres/ddl.py", "return '\"' + name.replace('\"', '\"\"') + '\"'", "return '\"' + name + '\"'", f"{_MINE}/test_hostile_cells.py::test_a_name_is_one_token"),
    R(17, "dblens/engines/mysql/sql.py", 'return "`" + name.replace("`", "``") + "`"', 'return "`" + name + "`"', f"{_MINE}/test_hostile_cells.py::test_a_name_is_one_token"),
    R(17, "dblens/engines/sqlite/ddl.py", "return '\"' + name.replace('\"', '\"\"') + '\"'", "return '\"' + name + '\"'", f"{_MINE}/test_hostile_cells.py::test_a_name_is_one_token"),
    # 18 on PostgreSQL: the gate of words, and the transaction behind it
    R(18, "dblens/engines/postgres/ask.py", "            ask_gate.reading(text)\n", "            pass\n",
      f"{_MINE}/test_bypasses.py::test_postgresql_refuses_and_nothing_is_changed"),
    R(18, "dblens/engines/postgres/ask.py", "        ask_gate.managed(text, within=self._transaction is not None and not read_only)\n", "",
      f"{_MINE}/test_bypasses.py::test_postgresql_leaves_transactions_to_the_session"),
    R(18, "dblens/engines/postgres/ask_run.py", 'f"BEGIN READ ONLY; {_locally', 'f"BEGIN READ WRITE; {_locally',
      f"{_MINE}/test_bypasses.py::test_postgresql_refuses_without_the_list_of_words"),
    R(18, "dblens/engines/postgres/ask_run.py", "            ask_gate.refuse_volatile([row[0] or \"\" for row in next(answers)])\n", "            pass\n",
      f"{_MINE}/test_bypasses.py::test_postgresql_looks_behind_a_harmless_name"),
    R(18, "dblens/engines/postgres/ask_run.py", "        if wrote:\n            raise", "        if False:\n            raise",
      f"{_MINE}/test_bypasses.py::test_postgresql_notices_what_took_a_transaction_id"),
    R(18, "dblens/engines/postgres/ask_wire.py", "send_query_params(sql.encode(), params.values or None, params.types or None, params.formats or None)",
      "send_query(sql.encode())", f"{_MINE}/test_bypasses.py::test_postgresql_takes_one_statement_at_a_time[execute]"),
    R(18, "dblens/engines/postgres/ask_wire.py", "send_prepare(b\"\", sql.encode(), types or None)", "send_prepare(b\"\", sql.partition(\";\")[0].encode(), types or None)",
      f"{_MINE}/test_bypasses.py::test_postgresql_takes_one_statement_at_a_time[prepare]"),
    # 18: row editing: one row, as it was shown, or nothing
    R(18, "dblens/query/edit.py", "            if not self.edits.alike(cell, text)\n", "            if False\n",
      f"{_E}/test_edits.py::test_who_changed_it_before_is_not_overwritten[sqlite]"),
    R(18, "dblens/query/edit.py", "        if affected != 1:", "        if False:",
      f"{_W}/test_edits.py::test_a_trigger_that_takes_the_row_away_undoes_all"),
    R(18, "dblens/query/edit.py", "            if atomic and not self.batch.loose:", "            if False:",
      f"{_E}/test_edits.py::TestSql::test_a_value_that_would_be_stored_otherwise_is_refused[mariadb]"),
    R(18, "dblens/query/edit.py", "                if self.asks.transaction is not None:\n                    self.asks.rollback()\n            if not atomic and done",
      "                if self.asks.transaction is not None:\n                    self.asks.commit()\n            if not atomic and done",
      f"{_W}/test_edits.py::test_one_that_fails_undoes_all"),
    R(18, "dblens/query/edit.py", "        if len(rows) != 1:\n            how", "        if not rows:\n            how",
      f"{_E}/test_edits.py::TestSql::test_without_a_key_all_values_match_and_only_one_row[sqlite]"),
    R(18, "dblens/workspace/edits.py", '    speech.confirmed({**told, "piecemeal": piecemeal, "loose": loose}, confirm)\n', "",
      f"{_W}/test_edits.py::test_a_confirmation_is_of_these_very_changes"),
    # 20: no other engine in this process
    R(20, "dblens/migrate/model.py", "import msgspec\n", "import duckdb\n\nimport msgspec\n", f"{_MINE}/test_bypasses.py::test_nothing_of_dblens_is_duckdb"),
    # 21: MongoDB's stages and operators
    R(21, "dblens/engines/mongodb/ask.py", "        if only and not wanted.reads:", "        if False:", f"{_MINE}/test_read_only_mongodb.py::test_a_reader_writes_nothing"),
    R(21, "dblens/engines/mongodb/ask.py", "only = read_only or self._session.read_only or inside", "only = read_only or inside",
      f"{_MINE}/test_read_only_mongodb.py::test_a_session_for_reading_writes_nothing_whatever_is_asked"),
    R(21, "dblens/engines/mongodb/ask_guard.py", "    elif read_only and key not in READS:", "    elif False:", f"{_MINE}/test_read_only_mongodb.py::test_what_is_on_no_list_is_refused"),
    R(21, "dblens/engines/mongodb/ask_guard.py", "        if not javascript:\n            raise no_javascript(key)", "        if False:\n            raise no_javascript(key)",
      f"{_MINE}/test_read_only_mongodb.py::test_javascript_is_refused_for_everybody"),
    R(21, "dblens/engines/mongodb/ask_guard.py", "        if stage not in allowed:", "        if False:", f"{_MINE}/test_read_only_mongodb.py::test_a_writer_has_a_list_of_stages_as_well"),
    R(21, "dblens/engines/mongodb/ask_guard.py", 'and "db" in place and place["db"] != database:', "and not place:",
      f"{_MINE}/test_read_only_mongodb.py::test_a_writer_does_not_leave_the_database_either"),
    R(21, "dblens/engines/mongodb/shell_values.py", '        if plain and key.startswith("$"):', "        if False:", f"{_MINE}/test_read_only_mongodb.py::test_a_parameter_is_never_an_operator"),
    R(21, "dblens/engines/mongodb/ask_guard.py", 'return {"$literal": found} if expression and _dollar(found) else found', "return found",
      f"{_E}/test_mongodb_ask.py::test_a_parameter_is_no_field_s_path"),
    R(21, "dblens/engines/mongodb/shell.py", '    if depth > DEPTH:\n        raise r.wrong(f"nested more than {DEPTH} deep")\n    r.need("(", "EJSON")', '    r.need("(", "EJSON")',
      "tests/unit/engines/test_mongodb_shell.py::test_a_megabyte_of_anything_is_bounded[ejson]"),
    # 25: code in data
    R(25, "dblens/migrate/model.py", "import msgspec\n", "import pickle\n\nimport msgspec\n",
      f"{_MINE}/test_data_is_data.py::test_nothing_that_runs_what_it_reads_is_used"),
    # 26: markup in what is shown
    R(26, "dblens/query/show.py", 'return markup.escape("".join(map(_visible, value)))', 'return "".join(map(_visible, value))',
      f"{_MINE}/test_hostile_cells.py::test_names_cells_and_words_are_text"),
    R(26, "dblens/query/show.py", "        return f\"⟨U+{ord(char):04X}⟩\"\n", "        return char\n", f"{_MINE}/test_hostile_cells.py::test_names_cells_and_words_are_text"),
    R(26, "dblens/query/show.py", "<small>{markup.escape(column.native)}</small>", "<small>{column.native}</small>", f"{_MINE}/test_hostile_cells.py::test_no_text_becomes_markup"),
    # 27: formulas in cells
    R(27, "dblens/query/export/cells.py", "    if not looks.true_count:\n", "    if True:\n",
      "tests/unit/query/test_export.py::test_no_cell_of_text_is_a_formula_by_default[csv]"),
    R(27, "dblens/query/export/delimited.py", 'if self._style == "safe":\n            looks', 'if not self._style:\n            looks',
      "tests/unit/query/test_export.py::test_no_cell_of_text_is_a_formula_by_default[tsv]"),
    R(27, "dblens/query/export/cells.py", r"\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}", "",
      "tests/unit/query/test_export.py::test_no_cell_of_text_is_a_formula_by_default[csv]"),
    R(27, "dblens/query/export/xlsx.py", 'text.startswith("<r>") and text.endswith("</r>")', "False",
      "tests/unit/query/test_export.py::test_a_workbook_has_no_formula_and_no_markup_of_its_cells"),
    R(27, "dblens/query/export/cells.py", 'only = {row for row, odd in odds.items() if odd.form is not column.form}', "only = set()",
      "tests/unit/query/test_export.py::test_other_texts_are_guarded_too"),
    # 29: ciphertext in another place
    R(29, "dblens/store/keys.py", "    if first.id in checks.retired:", "    if False:",
      f"{_S}/test_secrets.py::test_a_retired_key_never_wraps_again"),
    R(29, "dblens/store/secrets.py", "(org_id, record_id, field, key_id, kind)))", "(org_id,)))",
      f"{_S}/test_secrets.py::test_swapped_ciphertext_is_refused"),
    R(29, "dblens/store/secrets.py", "nonce = os.urandom(_NONCE)", "nonce = bytes(_NONCE)", f"{_S}/test_secrets.py::test_no_nonce_comes_twice[sqlite]"),
    R(29, "dblens/store/secrets.py", "c.uses <= most_uses - uses", "c.uses >= 0", f"{_S}/test_secrets.py::test_a_data_key_is_used_up[sqlite]"),
    R(28, "dblens/workspace/asked.py", "_fit(scrub(_PASSWORD.sub(", "_fit(str(_PASSWORD.sub(",
      f"{_W}/test_queries.py::test_the_history_keeps_no_password"),
    R(28, "dblens/workspace/asked.py", "scrub(_PASSWORD.sub(lambda found: f\"{found[1]}'{HIDDEN}'\", text))", "scrub(text)",
      f"{_W}/test_queries.py::test_the_history_keeps_no_password"),
    # 30: a part that is taken for the whole
    R(30, "dblens/query/stream.py", "        if self.told is None:\n            raise _cut(self.rows)\n        self._judge(self.told)", "        if self.told is not None:\n            self._judge(self.told)",
      "tests/unit/query/test_stream.py::test_a_stream_of_others_has_no_end"),
    R(30, "dblens/query/stream.py", "if told.get(ROWS) != str(self.rows).encode():", "if False:",
      "tests/unit/query/test_stream.py::test_rows_that_are_lost_on_the_way_are_noticed"),
    R(30, "dblens/query/run.py", "rows=Limits().rows if most is None else min(Limits().rows, most + 1)", "rows=Limits().rows if most is None else max(1, min(Limits().rows, most))",
      "tests/unit/query/test_run.py::test_the_cap_of_rows_asks_for_one_more"),
    R(30, "dblens/query/export/target.py", "os.link(self._part, self.path)", "os.replace(self._part, self.path)",
      "tests/unit/query/test_export.py::test_nothing_is_overwritten_unasked"),
    R(30, "dblens/query/export/target.py", "            self._part.unlink(missing_ok=True)\n", "            pass\n",
      "tests/unit/query/test_export.py::test_a_file_appears_whole_or_not_at_all"),
    # 31: too much of something
    R(31, "dblens/api/streams.py", "            await left()\n            around.cancel()", "            around.cancel()",
      "tests/client/test_queries.py::test_a_reader_who_leaves_stops_a_query_that_has_written_nothing"),
    R(31, "dblens/query/results.py", "self._changed.wait_for(lambda: self._left or self._held < self._room)", "pass",
      f"{_W}/test_queries.py::test_a_stream_is_bounded"),
    R(31, "dblens/query/run.py", "                running.why = running.why or \"late\"\n            running.check()\n            if limits.rows", "                pass\n            if limits.rows",
      "tests/unit/query/test_run.py::test_many_short_batches_do_not_outlive_the_deadline"),
    R(31, "dblens/accounts/passwords.py", "if not self._free.acquire(timeout=self._wait):", "if False:",
      f"{_A}/test_passwords.py::test_four_hashes_run_at_once_and_no_more"),
    R(31, "dblens/api/routes.py", "            if len(data) > most:\n                raise _too_large(most)\n", "",
      "tests/api/test_requests.py::test_a_body_is_bounded"),
    R(31, "dblens/api/streams.py", "self.request_id, self.patience = request_id, patience", "self.request_id, self.patience = request_id, 3600.0",
      "tests/api/test_streams.py::test_a_reader_that_sleeps_is_dropped"),
    R(31, "dblens/api/arguments.py", 'if "limit" in found and "limit" in known and not flows and not _page(found["limit"]):', "if False:",
      f"{_MINE}/test_bad_input_api.py::test_every_wrong_field_is_named_and_nothing_is_written[team.list]"),
    # 32: a history that was changed
    R(32, "dblens/store/audit.py", 'return hmac.new(key, b"".join(parts), hashlib.sha256).digest()',
      'return hashlib.sha256(b"".join(parts)).digest()', f"{_S}/test_audit.py::test_tampering_is_found_and_named"),
    R(32, "dblens/store/audit_text.py", 'yield json.dumps({name: _plain(row, name) for name in _COLUMNS}).encode() + b"\\n"',
      'yield ("{" + ",".join(f\'"{n}": "{_plain(row, n)}"\' for n in _COLUMNS) + "}\\n").encode("utf-8", "replace")',
      f"{_S}/test_audit_text.py::test_a_name_cannot_forge_a_line"),
    # 33: somebody else on the machine
    R(33, "dblens/api/server.py", "if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:", "if False:",
      f"{_MINE}/test_same_machine.py::test_a_folder_that_others_can_enter_is_refused"),
    R(33, "dblens/api/identity.py", "if status.st_mode & 0o077 or status.st_uid != os.geteuid():", "if False:",
      f"{_MINE}/test_same_machine.py::test_the_secret_of_this_machine_is_not_read_from_where_others_can_write"),
    R(33, "dblens/api/server.py", "    _alone_stays_home(settings)\n", "", f"{_MINE}/test_same_machine.py::test_alone_it_does_not_listen_for_others"),
    # 18, 19: a read-only question to SQLite that writes, or leads out of its file
    R(19, "dblens/engines/sqlite/ask_run.py", "                self._raw.set_authorizer(self._authorize)\n                self._cursor", "                self._cursor",
      f"{_MINE}/test_read_only_sqlite.py::test_writing_leads_out_of_the_file_neither"),
    R(19, "dblens/engines/sqlite/ask_run.py", "if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT):", "if False:",
      f"{_MINE}/test_read_only_sqlite.py::test_writing_leads_out_of_the_file_neither"),
    R(18, "dblens/engines/sqlite/ask.py", 'Db(path, mode="ro", busy_seconds=0.05)', "Db(path, busy_seconds=0.05)",
      f"{_MINE}/test_read_only_sqlite.py::test_the_file_layer_is_asked_of_the_file"),
    R(18, "dblens/engines/sqlite/ask_run.py", 'self._db.run("PRAGMA query_only = ON")', "pass",
      f"{_MINE}/test_read_only_sqlite.py::test_each_layer_holds_by_itself"),
    R(18, "dblens/engines/sqlite/ask_run.py", "if self._refuse and changed:", "if False:",
      f"{_MINE}/test_read_only_sqlite.py::test_each_layer_holds_by_itself"),
    R(18, "dblens/engines/sqlite/ask_run.py", "(_STRICT if strict else _LOOSE)(action", "_LOOSE(action",
      f"{_MINE}/test_read_only_sqlite.py::test_each_layer_holds_by_itself"),
    R(19, "dblens/engines/sqlite/ask.py", "if self._known[1] is None or _identity(path) != self._known[1]:", "if False:",
      f"{_MINE}/test_read_only_sqlite.py::test_a_file_that_was_exchanged_is_not_read"),
    R(19, "dblens/engines/access/files.py", "case sqlite3.SQLITE_ATTACH | sqlite3.SQLITE_DETACH:", "case -1:",
      f"{_MINE}/test_read_only_sqlite.py::test_reading_only_writes_nowhere"),
)  # fmt: skip


def copy(into: Path) -> Path:
    """Copy the tree, with the compiled module, for defences to be taken out of."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, into / name)
    return into


def there(removal: Removal) -> bool:
    """Say whether the defence stands where it is said to stand, once."""
    return (ROOT / removal.file).read_text(encoding="utf-8").count(removal.defence) == 1


def fails(tree: Path, removal: Removal) -> tuple[bool, str]:
    """Take the defence out of the copy, run the test, put it back; say whether the test failed, and its last words."""
    path = tree / removal.file
    text = path.read_text(encoding="utf-8")
    assert text.count(removal.defence) == 1, (removal.file, removal.defence)
    path.write_text(text.replace(removal.defence, removal.without), encoding="utf-8")
    try:
        return not passes(tree, removal.test)[0], ""
    finally:
        path.write_text(text, encoding="utf-8")


def passes(tree: Path, *tests: str) -> tuple[bool, str]:
    """Run tests in the copy; say whether all passed. Raises AssertionError when one could not even be found."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=line", "-p", "no:cacheprovider", *tests],
        cwd=tree, capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ran.returncode in (0, 1), f"{tests} were not run: {ran.stdout[-2000:]}{ran.stderr[-2000:]}"
    return ran.returncode == 0, ran.stdout[-500:]


def main() -> int:
    """Print which removal makes which test fail; return how many do not."""
    wanted = {int(text) for text in sys.argv[1:]}
    alive = 0
    with tempfile.TemporaryDirectory(prefix="dblens-removed-") as folder:
        tree = copy(Path(folder))
        if not wanted:
            passed, said = passes(tree, *sorted({removal.test for removal in REMOVALS}))
            print("with all of them in place:", said.strip().splitlines()[-1], flush=True)
            alive += not passed
        for removal in REMOVALS:
            if wanted and removal.attack not in wanted:
                continue
            if not there(removal):
                print(f"{removal.attack:3} NOT THERE {removal.file}: {removal.defence[:70]!r}", flush=True)
                alive += 1
                continue
            try:
                failed = fails(tree, removal)[0]
            except AssertionError as error:
                print(f"{removal.attack:3} NOT RUN   {removal.test}: {str(error)[-300:]}", flush=True)
                alive += 1
                continue
            alive += not failed
            print(f"{removal.attack:3} {'fails' if failed else 'ALIVE':9} {removal.file}: {removal.test}", flush=True)
    return alive


if __name__ == "__main__":
    raise SystemExit(main())
