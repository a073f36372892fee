"""Lets system calls of the real daemon fail, and checks what it has said and kept. Standard library only.

scripts/inject builds what it needs and calls it. A case is a phase of the daemon's work (a start, writes, a flush, a
change of segment, an end), a system call, which one of them in each thread, an error, and whether it fails once or from
then on for good. strace is attached for the phase alone, so that what follows shows whether the daemon recovers in place.
A short write is made with a limit of the files' size, for strace cannot write half. docs/reliability.md tells the rest.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "proto"))
from reference_client import Closed, Fault, Session, op, space  # noqa: E402

DEADLINE_S = 60  # for each thing that is waited for
ENOUGH_CASES = 160  # that everything occurs
SPACES = ["a", "b"]
PHASES = ["start", "buffered", "synced", "flush", "change", "stop"]
# By what they are for. Those that other things than the store's files use, too, are told apart by their path.
CALLS = {
    "write": ["pwrite64"],
    "sync": ["fdatasync"],
    "sync-dir": ["fsync"],
    "rename": ["rename", "renameat", "renameat2"],
    "link": ["link", "linkat"],
    "remove": ["unlink", "unlinkat"],
    "open": ["openat"],
    "allocate": ["fallocate"],
    "truncate": ["ftruncate"],
    "lock": ["flock"],
    "lock-note": ["write"],
    "make-dir": ["mkdir", "mkdirat"],
}
BY_PATH = ["open", "lock-note"]
COUNT = "COUNT"  # in an error's place: nothing fails
ERRORS = ["EIO", "ENOSPC", "EDQUOT", "EINTR", "SHORT"]
NO_ROOM = {"ENOSPC", "EDQUOT"}
# Answers that mean: nothing of it was done.
REFUSED = {"Full", "DiskError", "Unavailable", "Stopping", "FlushFailed", "TimedOut", "NeedsRepair", "FlushLockTimeout"}
REMEDIES = [
    "free some space",
    "try again",
    "the store anew",
    "start again",
    "restart",
    "read the record",
    "commonhold check",
    "flush again",
    "stop that one first",
    "there at the next start",
    "Start one with",
    "mend the cause",
    "Make the directory",
]
INJECTED = re.compile(r"^\d+ +(\w+)\((.*)\) += -1 (E\w+).*\(INJECTED\)$", re.MULTILINE)
UNFINISHED = re.compile(r"^(\d+) +(\w+)(\(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
SEGMENT = re.compile(r"/journal/\d+\.log>")


class Wrong(Exception):
    """Something is not as it should be."""


class Case(NamedTuple):
    """What fails."""

    phase: str
    call: str
    error: str
    when: int
    for_good: bool

    def __str__(self):
        how = "for good" if self.for_good else "once"
        return f"{self.phase}: {self.call} number {self.when} of a thread fails with {self.error}, {how}"


class Store:
    """One case's store, its daemon, and what its clients were told."""

    def __init__(self, daemon, template, scratch, durability):
        self.binary, self.scratch, self.durability = daemon, scratch, durability
        self.dir = scratch / "store"
        shutil.copytree(template, self.dir, symlinks=True, ignore=shutil.ignore_patterns("socket"))
        self.log, self.process, self.session = scratch / "daemon.log", None, None
        # (namespace, key): what it may be now; several where an outcome is not known.
        self.states = {}
        self.batches = []
        self.numbers = itertools.count(1)
        self.answers = collections.Counter()

    # --- The daemon.

    def start(self, tracer=()):
        options = ["--durability", self.durability, "--journal-limit", "1M", "--flush-lock-timeout", "1s"]
        command = [*tracer, self.binary, "--store", str(self.dir), "serve", *options]
        with open(self.log, "ab") as log:
            # With SIGXFSZ ignored, as Python has it, a write beyond the limit of a file's size is an error.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, restore_signals=False)

    def serves(self):
        """Waits until it serves, or has ended; which of both."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                return False
            try:
                with Session(self.dir, timeout_s=DEADLINE_S) as probe:
                    probe.ask("Ping")
                return True
            except (OSError, Closed):
                time.sleep(0.005)
        raise Wrong("the daemon neither serves nor ends")

    def end(self, how=signal.SIGKILL):
        self.hang_up()
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise Wrong("the daemon does not end") from None

    # --- What is asked.

    def connected(self):
        if self.session is None:
            self.session = Session(self.dir, timeout_s=DEADLINE_S)
        return self.session

    def hang_up(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def write(self, changes):
        """One request over these (namespace, key): value; no value is a delete. What was answered, or "lost"."""
        operations = []
        for (namespace, key), value in changes.items():
            name = "Delete" if value is None else "Put"
            fields = {"key": key} if value is None else {"key": key, "value": json.dumps(value)}
            operations.append(op(name, SPACES.index(namespace), **fields))
        try:
            self.connected().write([space(name) for name in SPACES], operations)
            answer = "done"
        except Closed as closed:
            self.hang_up()
            answer = "lost" if closed.name == "Stopping" else closed.name
        except Fault as fault:
            answer = fault.name
        except (OSError, ConnectionError):
            self.hang_up()
            answer = "lost"
        self.answers[answer] += 1
        if answer not in {"done", "lost", "OutcomeUnknown"} | REFUSED:
            raise Wrong(f"a write was answered {answer}")
        for place, value in changes.items():
            before = self.states.get(place, {None})
            if answer == "done":
                self.states[place] = {value}
            elif answer not in REFUSED:
                self.states[place] = before | {value}
        return answer

    def put(self, namespace, size=0):
        number = next(self.numbers)
        return self.write({(namespace, f"k{number % 7}"): f"{number}" + "x" * size})

    def batch(self):
        """Three keys that change together and are never touched again."""
        number = next(self.numbers)
        places = [("a", f"batch {number} a"), ("b", f"batch {number} b"), ("a", f"batch {number} c")]
        self.batches.append(places)
        return self.write(dict.fromkeys(places, f"batch {number}"))

    def ask(self, verb, value):
        try:
            self.connected().ask(verb, value)
            answer = "done"
        except Closed:
            self.hang_up()
            answer = "lost"
        except Fault as fault:
            answer = fault.name
        except (OSError, ConnectionError):
            self.hang_up()
            answer = "lost"
        if answer not in {"done", "lost", "OutcomeUnknown"} | REFUSED:
            raise Wrong(f"{verb} was answered {answer}")
        self.answers[f"{verb}: {answer}"] += answer != "done"
        return answer

    def commit(self):
        return self.ask("Commit", None)

    def flush(self):
        return self.ask("Flush", {"space": None, "rewrite": False, "wait": True})

    def command(self, *arguments):
        """The command line, whose words must say what to do when it fails."""
        command = [self.binary, "--store", str(self.dir), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        if ran.returncode != 0:
            says_what_to_do(ran.stderr, " ".join(arguments[:2]))
        return ran

    def put_by_command(self):
        """A put through the command line, to have its words."""
        number = next(self.numbers)
        place, value = ("a", "by command"), f"{number}"
        ran = self.command("put", "a", "by command", json.dumps(value))
        if ran.returncode == 0:
            self.states[place] = {value}
        elif ran.returncode == 6 or "outcome is unknown" in ran.stderr:
            self.states[place] = self.states.get(place, {None}) | {value}

    # --- What there is.

    def records(self):
        found = {}
        for name in SPACES:
            for entry in self.connected().scan(name):
                found[(name, entry["key"])] = json.loads(entry["value"])
        return found

    def compare(self, when):
        found = self.records()
        for place in {*found, *self.states}:
            if found.get(place) not in self.states.get(place, {None}):
                may_be = " or ".join(str(state)[:30] for state in self.states.get(place, {None}))
                raise Wrong(f"{when}: {place} is {str(found.get(place))[:30]}, and may be {may_be}")
        for places in self.batches:
            if len({found.get(place) for place in places}) != 1:
                raise Wrong(f"{when}: of the one request over {places} a part was done")
        return found

    def settle(self, found):
        """Whatever was not known: a restart has decided it for good."""
        self.states = {place: {state} for place, state in found.items()}


def says_what_to_do(words, of):
    if not any(remedy in words for remedy in REMEDIES):
        raise Wrong(f"{of}: this does not say what to do: {words.strip()[-600:]}")


# --- The phases.


def nothing(_store):
    pass


def writes(store):
    for _ in range(3):
        store.put("a")
        store.put("b")
    store.batch()
    store.put_by_command()
    store.write({("a", "k1"): None})
    store.commit()


def flushes(store):
    store.put("b")
    store.flush()
    store.put("a")
    ran = store.command("flush")
    store.answers["flush refused"] += ran.returncode != 0


def changes_segment(store):
    for _ in range(8):
        store.put("a", size=40_000)
    store.batch()


def stops(store):
    store.put("a")
    store.end(signal.SIGTERM)


WORK = {"start": nothing, "buffered": writes, "synced": writes, "flush": flushes, "change": changes_segment, "stop": stops}


# --- Tracing.


def paths(store):
    """The store's files by name, those that are yet to come among them: strace takes no patterns."""
    own = store.dir / ".commonhold"
    names = ["owner.lock", "files.json", "files.json.new", "journal", "journal/spare.log.new", "."]
    names += [f"journal/{number:08}.log{end}" for number in range(1, 12) for end in ("", ".new")]
    names += [f"flush/@/{name}.lock" for name in SPACES]
    found = [own / name for name in names] + [store.dir / f"kv_store_{name}.json" for name in SPACES] + [store.dir]
    return [os.path.normpath(path) for path in found]


def tracer(store, case, output):
    """strace's command line for a case; one that counts lets nothing fail. Signals end it also where it starts the daemon."""
    calls = ",".join(f"?{name}" for call in case.call.split("+") for name in CALLS[call])
    command = ["strace", "-I2", "-f", "-y", "-o", str(output), "-e", f"trace={calls}", "-e", "signal=none"]
    if case.error != COUNT:
        command += ["-e", f"inject={calls}:error={case.error}:when={case.when}{'+' * case.for_good}"]
    if case.call.split("+")[0] in BY_PATH:
        for path in paths(store):
            command += ["-P", path]
    return command


@contextlib.contextmanager
def traced(store, case, output):
    """The daemon under strace, for as long as this lasts."""
    command = [*tracer(store, case, output), "-p", str(store.process.pid)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.stderr.readline()
    if "attached" not in said:
        raise Wrong(f"strace does not attach: {said}")
    # It tells of every thread that comes, and must not wait for somebody to read that.
    reading = threading.Thread(target=process.stderr.read)
    reading.start()
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        reading.join()


def let_go(store):
    """Ends the tracing of a daemon that strace has started."""
    status = pathlib.Path(f"/proc/{store.process.pid}/status")
    number = re.compile(r"^TracerPid:\t(\d+)$", re.MULTILINE)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if (tracer_pid := int(number.search(status.read_text())[1])) == 0:
            return
        os.kill(tracer_pid, signal.SIGINT)
        until = time.monotonic() + DEADLINE_S
        while int(number.search(status.read_text())[1]):
            if time.monotonic() > until:
                raise Wrong("strace does not end")
            time.sleep(0.005)


def injected(output):
    """(call, arguments, error) of each that failed. strace writes a call in two lines where another thread's comes between."""
    begun, lines = {}, []
    for line in output.read_text().splitlines():
        if found := UNFINISHED.match(line):
            begun[found[1]] = found[3]
        elif (found := RESUMED.match(line)) and found[1] in begun:
            lines.append(f"{found[1]} {found[2]}{begun.pop(found[1])}{found[3]}")
        else:
            lines.append(line)
    return INJECTED.findall("\n".join(lines))


@contextlib.contextmanager
def with_small_files(store, case):
    """No file may grow beyond a little more than the journal's end, or what a new file's first bytes are."""
    limit = 64
    if case.phase != "flush":
        newest = max((store.dir / ".commonhold/journal").glob("*[0-9].log"))
        limit = len(newest.read_bytes().rstrip(b"\0")) + 8 + 40 * case.when
    pid = store.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


# --- A case.


def run(case, binary, template, states, scratch, then_kill):
    """Runs one; how many calls failed by it, and whether that ended all writing. Raises `Wrong`."""
    store = Store(binary, template, scratch, "synced" if case.phase == "synced" else "buffered")
    store.states = {place: set(found) for place, found in states.items()}
    output, restarted = scratch / "strace", False
    output.touch()
    try:
        if case.phase == "start":
            # The tracer is nobody's child then, and the daemon ours.
            store.start([*tracer(store, case, output), "-D"])
            if store.serves():
                let_go(store)
            else:
                if case.error != COUNT:
                    says_what_to_do(store.log.read_text(), "the end of a start")
                restarted = True
                store.start()
                if not store.serves():
                    raise Wrong("it does not start again when nothing fails any more")
        else:
            store.start()
            if not store.serves():
                raise Wrong("it does not start")
            # So that the namespaces are loaded, and the session is there.
            store.put("a")
            store.put("b")
            fault = with_small_files(store, case) if case.error == "SHORT" else traced(store, case, output)
            with fault:
                WORK[case.phase](store)
                if case.phase != "stop":
                    store.compare("while calls fail")
        if case.error == COUNT:
            store.end()
            return output.read_text()
        failed = injected(output)
        hits = len(failed) if case.error != "SHORT" else store.answers.total() - store.answers["done"]
        # A start that has failed has left nothing behind that the next one would know of.
        is_poisoned = after(store, case, [] if restarted else failed)
        if store.process.poll() is None:
            store.compare("when nothing fails any more")
            code = store.end(signal.SIGKILL if then_kill else signal.SIGTERM)
            if not then_kill and code != (7 if is_poisoned else 0):
                raise Wrong(f"the daemon ended with {code}: {store.log.read_text()[-600:]}")
        reopened(store)
        return hits, is_poisoned
    finally:
        with contextlib.suppress(Exception):
            store.process.kill()
            store.process.wait()
        store.hang_up()


def after(store, case, failed):
    """What a daemon that still runs must do when nothing fails any more. Whether its journal is poisoned."""
    if store.process.poll() is not None:
        if case.phase != "stop" and case.phase != "start":
            raise Wrong(f"the daemon ended with {store.process.returncode}: {store.log.read_text()[-600:]}")
        return False
    syncs = [found for found in failed if found[0] in {"fdatasync", "fsync"} and found[2] != "EINTR"]
    until = time.monotonic() + 10
    answer = store.put("a")
    if any(SEGMENT.search(arguments) for _, arguments, _ in syncs):
        # Whatever the error was. The thread that met it may not have come to tell.
        while answer == "done":
            if time.monotonic() > until:
                raise Wrong("a sync of the journal failed, and writes go on")
            answer = store.put("a")
        # And for as long as the daemon lives.
        store.commit()
        store.flush()
        if (answers := {answer, store.put("b"), store.put("a")}) != {"Unavailable"}:
            raise Wrong(f"a sync of the journal failed, and then writes were answered {answers}")
        if "sync" not in store.connected().ask("Status").value["json"]:
            raise Wrong("status does not tell that a sync failed")
        return True
    if answer == "Unavailable" and syncs:
        # That of a directory, or of what makes a segment.
        return True
    while answer != "done":
        if time.monotonic() > until:
            raise Wrong(f"it does not recover in place: a write is still answered {answer}")
        time.sleep(0.05)
        answer = store.put("a")
    while (answer := store.flush()) != "done":
        if time.monotonic() > until:
            raise Wrong(f"it does not recover in place: a flush is still answered {answer}")
        time.sleep(0.05)
    return False


def reopened(store):
    """All of it is there for the next daemon, and the files are whole."""
    store.start()
    if not store.serves():
        raise Wrong(f"the next daemon does not start: {store.log.read_text()[-600:]}")
    store.settle(store.compare("after a restart"))
    if (answer := store.put("b")) != "done":
        raise Wrong(f"the next daemon answers a write {answer}")
    found = store.compare("after a restart and a write")
    if store.end(signal.SIGTERM) != 0:
        raise Wrong(f"the next daemon does not end well: {store.log.read_text()[-600:]}")
    for name in SPACES:
        in_file = json.loads((store.dir / f"kv_store_{name}.json").read_text(encoding="utf-8"))
        if in_file != {key: value for (of, key), value in found.items() if of == name}:
            raise Wrong(f"kv_store_{name}.json is not what was served")
    left = [path.name for path in store.dir.glob("*.tmp.*")]
    if left:
        raise Wrong(f"these temporaries stay: {left}")
    checked = subprocess.run(
        [store.binary, "--store", str(store.dir), "check", "--deep"], capture_output=True, text=True, check=False
    )
    if checked.returncode != 0:
        raise Wrong(f"check --deep ended with {checked.returncode}: {checked.stdout}{checked.stderr}")


# --- The cases.


def make_template(binary, scratch):
    """A store with flushed and unflushed records, as a kill leaves it; and what it holds."""
    empty = scratch / "empty"
    empty.mkdir()
    store = Store(binary, empty, scratch / "first", "buffered")
    store.start()
    if not store.serves():
        raise Wrong(f"the daemon does not start: {store.log.read_text()}")
    for _ in range(2):
        store.put("a", size=100)
        store.put("b")
        store.batch()
        if store.flush() != "done":
            raise Wrong("the first flush fails")
    store.put("a")
    store.write({("b", "k2"): None})
    store.end()
    return store.dir, store.states


def count_calls(binary, template, states, scratch, phase, calls):
    """The most calls of each kind that one thread makes in the phase."""
    place = scratch / f"count-{phase}-{calls[0]}"
    place.mkdir()
    seen = run(Case(phase, "+".join(calls), COUNT, 1, False), binary, template, states, place, then_kill=True)
    shutil.rmtree(place)
    by_thread = collections.Counter(re.findall(r"^(\d+) +(\w+)\(", seen, re.MULTILINE))
    most = {call: max((n for (_, name), n in by_thread.items() if name in CALLS[call]), default=0) for call in calls}
    return {(phase, call): count for call, count in most.items() if count}


def all_cases(counts):
    for (phase, call), most in counts.items():
        for when in range(1, min(most, 12) + 1):
            for error in ERRORS:
                if error == "SHORT":
                    if call == "write" and phase in {"buffered", "synced", "flush", "change"}:
                        yield Case(phase, call, error, when, True)
                    continue
                yield Case(phase, call, error, when, False)
                # What is interrupted is tried again, for ever if need be.
                if error != "EINTR":
                    yield Case(phase, call, error, when, True)


def chosen(cases, number, seed):
    """So many of them: of each phase and call one, then of each error, then by chance."""
    randomness = random.Random(seed)
    cases = list(cases)
    randomness.shuffle(cases)
    seen, first, rest = set(), [], []
    for case in cases:
        marks = {(case.phase, case.call), (case.phase, case.error), (case.call, case.for_good), (case.call, case.error)}
        (first if not marks <= seen else rest).append(case)
        seen |= marks
    return (first + rest)[:number]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--daemon", required=True, help="the commonhold binary")
    parser.add_argument("--cases", type=int, default=ENOUGH_CASES, help="how many are taken of all")
    parser.add_argument("--all", action="store_true", help="every one")
    parser.add_argument("--seed", type=int, default=1, help="of which are taken")
    parser.add_argument("--jobs", type=int, default=4, help="how many at once: they wait more than they work")
    parser.add_argument("--only", default="", help="those whose sentence holds this")
    options = parser.parse_args()
    began, scratch = time.monotonic(), pathlib.Path(tempfile.mkdtemp(prefix="commonhold-inject."))
    (scratch / "first").mkdir()
    binary = shutil.copy(options.daemon, scratch / "commonhold")
    template, states = make_template(binary, scratch)
    wrong, hits, missed, poisoned, by = [], collections.Counter(), 0, 0, collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        kinds = [[call for call in CALLS if call not in BY_PATH], BY_PATH]
        pairs = itertools.product(PHASES, kinds)
        counts = {}
        for counted in pool.map(lambda pair: count_calls(binary, template, states, scratch, *pair), pairs):
            counts |= counted
        cases = [case for case in all_cases(counts) if options.only in str(case)]
        there_are = len(cases)
        if not options.all:
            cases = chosen(cases, options.cases, options.seed)
        print(f"seed                  {options.seed}")
        print(f"cases                 {len(cases)} of {there_are}, in {len(counts)} kinds of call by phase", flush=True)

        def run_one(numbered):
            number, case = numbered
            place = scratch / f"case-{number}"
            place.mkdir()
            try:
                return case, place, run(case, binary, template, states, place, number % 2 == 0), None
            except Wrong as reason:
                return case, place, (0, False), str(reason)
            except Exception:  # noqa: BLE001: a case that cannot be run has not held
                return case, place, (0, False), traceback.format_exc()

        for case, place, (hit, is_poisoned), reason in pool.map(run_one, enumerate(cases)):
            if reason is not None:
                wrong.append(case)
                print(f"\nFAILED {case}: {reason}\nkept: {place}", file=sys.stderr, flush=True)
                continue
            shutil.rmtree(place)
            missed += hit == 0
            hits[case.error] += hit
            by[case.phase] += 1
            poisoned += is_poisoned
    print(f"cases by phase        {', '.join(f'{phase} {by[phase]}' for phase in PHASES)}")
    print(f"calls that failed     {', '.join(f'{error} {hits[error]}' for error in ERRORS)}")
    print(f"cases not met         {missed}")
    print(f"ended all writing     {poisoned}, for as long as the daemon lived")
    print(f"seconds               {time.monotonic() - began:.0f}")
    # A run in which one of these did not occur has not shown what it should.
    missing = [error for error in ERRORS if not hits[error]] + [phase for phase in PHASES if not by[phase]]
    if (missing or not poisoned) and not options.only and options.cases >= ENOUGH_CASES:
        print(f"FAILED: this did not occur: {missing or 'a failed sync of the journal'}", file=sys.stderr)
        return 1
    if wrong:
        print(f"{len(wrong)} did not go well; kept: {scratch}", file=sys.stderr)
        return 1
    shutil.rmtree(scratch)
    print("all of it holds: nothing acknowledged is lost, files are whole, and each error says what to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
