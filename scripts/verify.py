#!/usr/bin/env python3
"""Checks a store after `scripts/quickstart` against what its workers were told. Standard library only.

For every key that was written: its final state is that of its highest acknowledged Seq, or that of a write whose
outcome is unknown and which can have come after it. Every other key is as it was before. Python's json.load of each
file equals what `commonhold export` gives, in content and order. Exit 0 only if all of it holds.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

FIRST_COLUMNS = ["read", "put", "delete", "batch", "pipelined", "tally", "claim", "flush", "commit", "refused"]
NEVER = float("inf")


class Checks:
    """Counts what was compared, and keeps the sentences about what was not as it should be."""

    def __init__(self):
        self.failures = []

    def that(self, holds, sentence):
        if not holds:
            self.failures.append(sentence)

    def report(self, name, detail):
        print(f"  {name:<44} {detail}")


def fnv1a(text):
    """The hash that examples/worker/log.rs writes."""
    value = 0xCBF29CE484222325
    for byte in text.encode("utf-8", "surrogatepass"):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def canonical(value):
    """The canonical text of a value: what the worker sent and hashed."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def state(records, key):
    return fnv1a(canonical(records[key])) if key in records else "deleted"


def load_files(directory):
    files = sorted(pathlib.Path(directory).glob("kv_store_*.json"))
    records = {}
    for path in files:
        with open(path, encoding="utf-8") as file:
            records[path.name.removeprefix("kv_store_").removesuffix(".json")] = json.load(file)
    return records


class Write:
    """One key of one request, as its worker logged it."""

    def __init__(self, worker, line):
        self.worker, self.request, self.kind = worker, line["request"], line["kind"]
        self.name = (line["namespace"], line["key"])
        self.state = line["state"]
        self.seq = None if line["seq"] == "unknown" else line["seq"]
        self.before = NEVER  # of an unknown outcome: if it was done, its Seq is below this one


def read_log(path, checks):
    """The writes of one worker, in its order, and its summary."""
    writes, summary = [], None
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if "sides" in line:
                summary = line
            else:
                writes.append(Write(path, line))
    checks.that(summary is not None, f"{path} has no summary: its worker did not finish")
    # A worker writes one thing after the other, except within a pipelined group, of which it logs the unknown ones
    # last. So a write of unknown outcome that was done at all was done before the next one that was acknowledged.
    following = NEVER
    for write in reversed(writes):
        if write.seq is None:
            write.before = following
        else:
            following = min(following, write.seq)
    return writes, summary


def check_sequence_numbers(writes, checks):
    """A Seq belongs to one request, for ever."""
    owner = {}
    for write in writes:
        if write.seq is not None:
            request = (write.worker, write.request)
            first = owner.setdefault(write.seq, request)
            checks.that(first == request, f"Seq {write.seq} was given to {first} and to {request}")
    checks.report("sequence numbers, each given once", f"{len(owner)} write requests")


def check_written_keys(writes, after, checks):
    by_name = collections.defaultdict(list)
    for write in writes:
        by_name[write.name].append(write)
    from_unknown = contended = 0
    for name, of_key in by_name.items():
        contended += len({write.worker for write in of_key}) > 1
        final = state(after.get(name[0], {}), name[1])
        last = max((write for write in of_key if write.seq is not None), key=lambda write: write.seq, default=None)
        highest = last.seq if last else 0
        if last and final == last.state:
            continue
        possible = [write for write in of_key if write.seq is None and write.before > highest]
        # A key of which no write was acknowledged may be as it was before: check_untouched looks at those.
        if any(final == write.state for write in possible):
            from_unknown += 1
        elif last:
            checks.that(False, f"{name}: is {final}, but Seq {highest} left it {last.state}; {len(possible)} unknown")
    unknown = sum(write.seq is None for write in writes)
    checks.report("written keys, each in its last state", f"{len(by_name)} keys, {contended} by several workers")
    checks.report("  explained by a write of unknown outcome", f"{from_unknown} keys, of {unknown} unknown changes")
    return by_name


def check_untouched(by_name, before, after, checks):
    untouched = 0
    for namespace, records in before.items():
        now = after.get(namespace, {})
        for key, value in records.items():
            of_key = by_name.get((namespace, key), [])
            if any(write.seq is not None for write in of_key):
                continue
            possible = {canonical(value)} if key in records else set()
            same = key in now and canonical(now[key]) in possible
            unknown = any(state(now, key) == write.state for write in of_key)
            checks.that(same or unknown, f"{(namespace, key)} was changed, and no write explains it")
            untouched += same
        strangers = [key for key in now if key not in records and (namespace, key) not in by_name]
        checks.that(not strangers, f"{namespace} has records that nobody wrote: {strangers[:3]}")
    checks.that(set(after) >= set(before), f"files are missing: {set(before) - set(after)}")
    for (namespace, key), of_key in by_name.items():
        if key not in before.get(namespace, {}) and all(write.seq is None for write in of_key):
            final = state(after.get(namespace, {}), key)
            possible = {write.state for write in of_key} | {"deleted"}
            checks.that(final in possible, f"{(namespace, key)} is {final}, which nobody wrote")
    checks.report("records that nobody wrote, as before", f"{untouched} records")


def check_requests_whole(after, checks):
    """The three keys of a pair are only ever written by one request, over two namespaces."""
    pairs = {}
    for namespace in ("text_chunks", "doc_status"):
        for key, value in after.get(namespace, {}).items():
            if key.startswith("pair-"):
                pair, part = key.rsplit("-", 1)
                pairs.setdefault(pair, {})[part] = value["stamp"]
    for pair, stamps in pairs.items():
        whole = len(stamps) == 3 and len(set(stamps.values())) == 1
        checks.that(whole, f"{pair} holds parts of different requests: {stamps}")
    checks.report("requests over several keys, whole or not", f"{len(pairs)} groups of three keys")


def check_conditions(writes, after, checks):
    """Counters raised with if_seq lose no addition; keys claimed with if_absent are won once."""
    tallies = [key for key in after.get("doc_status", {}) if key.startswith("tally-")]
    additions = 0
    for key in tallies:
        of_key = [write for write in writes if write.name == ("doc_status", key)]
        acknowledged = sum(write.seq is not None for write in of_key)
        unknown = len(of_key) - acknowledged
        count = after["doc_status"][key]["count"]
        fits = acknowledged <= count <= acknowledged + unknown
        checks.that(fits, f"{key} is {count}, after {acknowledged} acknowledged additions and {unknown} unknown ones")
        additions += acknowledged
    checks.report("counters raised with if_seq, nothing lost", f"{additions} additions to {len(tallies)} counters")
    won = collections.Counter(write.name for write in writes if write.kind == "claim" and write.seq is not None)
    twice = [name for name, times in won.items() if times > 1]
    checks.that(not twice, f"claimed twice: {twice[:3]}")
    checks.report("keys claimed with if_absent, won once", f"{len(won)} keys")


def check_exports(binary, directory, after, checks):
    for namespace, records in after.items():
        command = [binary, "--store", directory, "export", namespace, "-"]
        ended = subprocess.run(command, capture_output=True, check=False)
        if ended.returncode != 0:
            checks.that(False, f"export {namespace}: exit {ended.returncode}: {ended.stderr.decode(errors='replace')}")
            continue
        same = canonical(json.loads(ended.stdout)) == canonical(records)
        checks.that(same, f"export {namespace} differs from json.load of its file")
    total = sum(len(records) for records in after.values())
    checks.report("json.load of each file equals `export`", f"{len(after)} files, {total} records")


def report_workers(summaries, least, checks):
    print("what each worker did (acknowledged operations, before and after the kill)\n")
    kinds = [kind for kind in FIRST_COLUMNS if any(kind in side for summary in summaries for side in summary["sides"])]
    print(f"  {'worker':<14}" + "".join(f"{kind:>10}" for kind in kinds) + f"{'total':>8}  unknown")
    for summary in summaries:
        for name, side in zip(("before", "after"), summary["sides"]):
            total = sum(count for kind, count in side.items() if kind != "unknown")
            cells = "".join(f"{side.get(kind, 0):>10}" for kind in kinds)
            print(f"  {summary['worker']:<6} {name:<7}{cells}{total:>8}{side.get('unknown', 0):>9}")
            checks.that(total >= least, f"worker {summary['worker']} did only {total} operations {name} the kill")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the commonhold binary")
    parser.add_argument("--before", required=True, help="the store's files as they were")
    parser.add_argument("--after", required=True, help="the store, stopped")
    parser.add_argument("--operations", type=int, default=1, help="least operations of a worker on each side")
    parser.add_argument("logs", nargs="+", help="the workers' logs")
    options = parser.parse_args()

    checks = Checks()
    before, after = load_files(options.before), load_files(options.after)
    logs = [read_log(path, checks) for path in options.logs]
    writes = [write for of_worker, _ in logs for write in of_worker]
    report_workers([summary for _, summary in logs if summary], options.operations, checks)

    print("what was checked\n")
    check_sequence_numbers(writes, checks)
    by_name = check_written_keys(writes, after, checks)
    check_untouched(by_name, before, after, checks)
    check_requests_whole(after, checks)
    check_conditions(writes, after, checks)
    check_exports(options.binary, options.after, after, checks)
    if checks.failures:
        print(f"\nFAILED: {len(checks.failures)} things are not as they should be", file=sys.stderr)
        for failure in checks.failures[:20]:
            print(f"  {failure}", file=sys.stderr)
        return 1
    print("\nAll of it holds: nothing that was acknowledged is lost.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
