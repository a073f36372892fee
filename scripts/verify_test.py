#!/usr/bin/env python3
"""Tests of verify.py: a checker that cannot fail checks nothing. Run by scripts/check; standard library only."""

import contextlib
import io
import json
import pathlib
import stat
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True
import verify  # noqa: E402

OLD, NEW, LOST = {"v": "old"}, {"v": "new"}, {"v": "lost"}
FAKE_EXPORT = "#!/bin/sh\nexec cat \"$2/kv_store_$4.json\"\n"


def change(seq, value, key="k", request=1, kind="put", namespace="text_chunks"):
    state = "deleted" if value is None else verify.fnv1a(verify.canonical(value))
    line = {"seq": seq, "side": 1, "kind": kind, "request": request, "namespace": namespace, "key": key}
    return line | {"state": state}


class Verify(unittest.TestCase):
    def run_on(self, before, after, *logs, export=FAKE_EXPORT):
        """Runs verify.py over files and logs made for it; answers its exit code and what it printed."""
        with tempfile.TemporaryDirectory() as name:
            scratch = pathlib.Path(name)
            for folder, records in (("before", before), ("after", after)):
                (scratch / folder).mkdir()
                for namespace, of_namespace in records.items():
                    (scratch / folder / f"kv_store_{namespace}.json").write_text(json.dumps(of_namespace))
            paths = []
            for number, lines in enumerate(logs, 1):
                paths.append(str(scratch / f"worker-{number}.log"))
                summary = {"worker": number, "sides": [{"put": 1}, {"read": 1}]}
                text = "".join(json.dumps(line) + "\n" for line in [*lines, summary])
                pathlib.Path(paths[-1]).write_text(text)
            binary = scratch / "commonhold"
            binary.write_text(export)
            binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
            arguments = ["verify.py", "--binary", str(binary), "--before", str(scratch / "before")]
            arguments += ["--after", str(scratch / "after"), *paths]
            printed = io.StringIO()
            with mock.patch.object(sys, "argv", arguments):
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                    code = verify.main()
            return code, printed.getvalue()

    def holds(self, *arguments, **options):
        code, printed = self.run_on(*arguments, **options)
        self.assertEqual(code, 0, printed)

    def fails(self, words, *arguments, **options):
        code, printed = self.run_on(*arguments, **options)
        self.assertEqual(code, 1, printed)
        self.assertIn(words, printed)

    def test_the_highest_acknowledged_seq_decides_whoever_wrote_it(self):
        logs = [change(5, OLD), change(9, NEW, request=2)], [change(7, LOST)]
        self.holds({"text_chunks": {}}, {"text_chunks": {"k": NEW}}, *logs)
        self.fails("Seq 9 left it", {"text_chunks": {}}, {"text_chunks": {"k": LOST}}, *logs)
        self.fails("Seq 9 left it", {"text_chunks": {}}, {"text_chunks": {}}, *logs)

    def test_an_unknown_write_may_be_there_or_not(self):
        log = [change(5, OLD), change("unknown", NEW, request=2)]
        self.holds({"text_chunks": {}}, {"text_chunks": {"k": NEW}}, log)
        self.holds({"text_chunks": {}}, {"text_chunks": {"k": OLD}}, log)
        self.fails("1 unknown", {"text_chunks": {}}, {"text_chunks": {"k": LOST}}, log)

    def test_an_unknown_write_cannot_come_after_what_its_worker_did_next(self):
        log = [change("unknown", LOST), change(8, OLD, key="other", request=2)]
        self.fails("0 unknown", {"text_chunks": {}}, {"text_chunks": {"k": LOST, "other": OLD}}, log, [change(9, NEW)])
        self.holds({"text_chunks": {}}, {"text_chunks": {"k": LOST, "other": OLD}}, log, [change(7, NEW)])

    def test_a_deleted_key_stays_deleted(self):
        log = [change(5, OLD), change(6, None, request=2)]
        self.holds({"text_chunks": {}}, {"text_chunks": {}}, log)
        self.fails("left it deleted", {"text_chunks": {}}, {"text_chunks": {"k": OLD}}, log)

    def test_records_that_nobody_wrote_are_as_before(self):
        self.holds({"text_chunks": {"a": OLD}}, {"text_chunks": {"a": OLD}}, [])
        self.fails("was changed", {"text_chunks": {"a": OLD}}, {"text_chunks": {"a": NEW}}, [])
        self.fails("was changed", {"text_chunks": {"a": OLD}}, {"text_chunks": {}}, [])
        self.fails("nobody wrote", {"text_chunks": {}}, {"text_chunks": {"a": OLD}}, [])
        self.fails("files are missing", {"text_chunks": {"a": OLD}}, {}, [])
        self.fails("which nobody wrote", {"text_chunks": {}}, {"text_chunks": {"k": NEW}}, [change("unknown", OLD)])

    def test_a_seq_is_given_once(self):
        after = {"text_chunks": {"k": NEW, "other": NEW}}
        self.fails("was given to", {"text_chunks": {}}, after, [change(5, NEW)], [change(5, NEW, key="other")])
        self.holds({"text_chunks": {}}, after, [change(5, NEW), change(5, NEW, key="other")])

    def test_half_a_request_is_noticed(self):
        keys = ["pair-w1-0-left", "pair-w1-0-right", "pair-w1-0-third"]
        log = [change(5, {"stamp": 1}, key=key) for key in keys[:2]]
        log += [change("unknown", {"stamp": 2}, key=key, request=2) for key in keys[:2]]
        after = {"text_chunks": {keys[0]: {"stamp": 1}, keys[1]: {"stamp": 2}}}
        self.fails("parts of different requests", {"text_chunks": {}}, after, log)

    def test_a_lost_addition_and_a_claim_won_twice_are_noticed(self):
        tallies = [change(seq, {"count": 1}, "tally-0", seq, "tally", "doc_status") for seq in (5, 6)]
        after = {"doc_status": {"tally-0": {"count": 1}}}
        self.fails("after 2 acknowledged additions", {"doc_status": {}}, after, tallies)
        claims = [change(seq, NEW, "claim-0", seq, "claim", "full_entities") for seq in (5, 6)]
        self.fails("claimed twice", {}, {"full_entities": {"claim-0": NEW}}, claims)

    def test_an_export_that_differs_is_noticed_also_in_order(self):
        records = {"text_chunks": {"a": OLD, "b": OLD}}
        other = '#!/bin/sh\necho \'{"b": {"v": "old"}, "a": {"v": "old"}}\'\n'
        self.fails("differs from json.load", records, records, [], export=other)
        self.fails("exit 5", records, records, [], export="#!/bin/sh\nexit 5\n")


if __name__ == "__main__":
    unittest.main()
