#!/usr/bin/env python3
"""Tests of crash_check.py: a checker that cannot fail checks nothing. Run by scripts/check; standard library only."""

import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True
from crash_check import Checker, Log  # noqa: E402

BOOT = 1 << 32


class CrashCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.checker = pathlib.Path(folder.name), Checker()

    def look(self, final, *workers, from_memory=False):
        """What the checker says of a store that holds `final`, after these workers' logs."""
        requests, settled = [], []
        for number, lines in enumerate(workers):
            path = self.folder / f"{number}.log"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            begun, promised = Log(f"worker {number}", path).read()
            requests += begun
            settled += promised
        final = {("docs", key): state for key, state in final.items()}
        return self.checker.check(final, requests, settled, from_memory)

    def put(self, request, key, state, seq=None, durability=None):
        lines = [self.begun(request, key, state, durability)]
        return lines if seq is None else [*lines, {"request": request, "seq": seq}]

    def begun(self, request, key, state, durability=None):
        line = {"seq": "unknown", "kind": "one", "request": request, "namespace": "docs", "key": key}
        return line | {"state": state, "durability": durability}

    def test_the_highest_acknowledged_write_counts_whoever_made_it(self):
        first, second = self.put(1, "k", "a", BOOT + 2), self.put(1, "k", "b", BOOT + 1)
        self.assertEqual(self.look({"k": "a"}, first, second), [])

    def test_a_lost_write_is_noticed(self):
        self.assertEqual(self.look({"k": "a"}, self.put(1, "k", "a", BOOT + 1)), [])
        self.assertEqual(len(self.look({"k": "a"}, self.put(2, "k", "b", BOOT + 2))), 1)
        self.assertEqual(self.checker.lost, 1)

    def test_a_lost_delete_and_a_record_that_nobody_wrote_are_noticed(self):
        self.assertEqual(self.look({"k": "a"}, self.put(1, "k", "a", BOOT + 1)), [])
        self.assertEqual(len(self.look({"k": "a"}, self.put(2, "k", "deleted", BOOT + 2))), 1)
        self.assertEqual(len(self.look({"k": "a", "new": "x"})), 1)

    def test_a_write_of_unknown_outcome_may_be_there_or_not(self):
        known, unknown = self.put(1, "k", "a", BOOT + 1), self.put(2, "k", "b")
        self.assertEqual(self.look({"k": "a"}, known + unknown), [])
        self.setUp()
        self.assertEqual(self.look({"k": "b"}, known + unknown), [])
        self.assertEqual(self.checker.settled_by_unknown, 1)

    def test_an_unknown_write_does_not_come_after_its_workers_next_one(self):
        lines = self.put(1, "k", "a") + self.put(2, "other", "x", BOOT + 1) + self.put(3, "k", "b", BOOT + 2)
        self.assertEqual(len(self.look({"k": "a", "other": "x"}, lines)), 1)

    def test_a_refused_write_changes_nothing(self):
        refused = [self.begun(1, "k", "a"), {"request": 1, "seq": "refused"}]
        self.assertEqual(len(self.look({"k": "a"}, refused)), 1)

    def test_a_clear_takes_every_key_but_those_written_after_it(self):
        lines = self.put(1, "k", "a", BOOT + 1) + self.put(2, "l", "a", BOOT + 2)
        self.assertEqual(self.look({"k": "a", "l": "a"}, lines), [])
        clear = [self.begun(3, None, "deleted"), self.begun(3, "k", "b"), {"request": 3, "seq": BOOT + 3}]
        self.assertEqual(self.look({"k": "b"}, clear), [])
        self.assertEqual(len(self.look({"k": "b", "l": "a"})), 1)

    def test_a_number_given_twice_is_noticed(self):
        self.assertEqual(self.look({"k": "a"}, self.put(1, "k", "a", BOOT + 1)), [])
        self.assertEqual(len(self.look({"k": "b"}, self.put(2, "k", "b", BOOT + 1))), 1)

    def test_a_counter_is_what_was_added_to_it(self):
        raised = [{"request": number, "namespace": "tallies", "key": "t", "state": "+1"} for number in (1, 2, 3)]
        lines = [line | {"seq": "unknown", "kind": "tally", "durability": None} for line in raised]
        lines += [{"request": 1, "seq": BOOT + 1}, {"request": 2, "seq": BOOT + 2}]
        (self.folder / "t.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for count, wrong in [(1, 1), (2, 0), (3, 0), (4, 1)]:
            requests, settled = Log("worker", self.folder / "t.log").read()
            self.assertEqual(len(Checker().check({("tallies", "t"): count}, requests, settled)), wrong, count)
        requests, settled = Log("worker", self.folder / "t.log").read()
        self.assertEqual(Checker().check({}, requests, settled, from_memory=True), [])

    def test_half_a_request_is_noticed(self):
        self.checker.base = {("chunks", "pair-1"): "a", ("tenant_a/chunks", "pair-1"): "b"}
        self.assertEqual(len(self.checker.check(dict(self.checker.base), [], [])), 2)

    def test_memory_may_lose_a_suffix(self):
        lines = self.put(1, "k", "a", BOOT + 1) + self.put(2, "l", "b", BOOT + 2)
        self.assertEqual(self.look({"k": "a"}, lines, from_memory=True), [])
        self.assertEqual(self.checker.given_up, 1)

    def test_memory_may_not_lose_from_the_middle(self):
        lines = self.put(1, "k", "a", BOOT + 1) + self.put(2, "l", "b", BOOT + 2)
        self.assertEqual(len(self.look({"l": "b"}, lines, from_memory=True)), 1)

    def test_memory_may_not_lose_what_was_promised_more(self):
        lines = self.put(1, "k", "a", BOOT + 1, "Buffered")
        self.assertEqual(len(self.look({}, lines, from_memory=True)), 1)
        self.setUp()
        lines = [*self.put(1, "k", "a", BOOT + 1), {"settled": BOOT + 1}]
        self.assertEqual(len(self.look({}, lines, from_memory=True)), 1)

    def test_memory_may_not_lose_what_the_next_daemon_answered(self):
        lines = self.put(1, "k", "a", BOOT + 1) + self.put(2, "l", "b", 2 * BOOT + 1)
        self.assertEqual(self.look({"l": "b"}, lines, from_memory=True), [])
        self.setUp()
        self.assertEqual(len(self.look({"k": "a"}, lines, from_memory=True)), 1)


if __name__ == "__main__":
    unittest.main()
