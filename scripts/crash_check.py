"""What a store may hold after a crash, by what its writers were told. Used by crash_loop.py; standard library only.

The writers log each request before they send it, and its outcome when they learn it (see examples/storm.rs). From one
look at the store to the next, each key must be in the state of its highest acknowledged Seq, or in that of a write of
unknown outcome that can have come after it. A daemon that answers from memory may lose a suffix: then there must be one
cut, above everything that was promised to survive, for which all of that holds.
"""

import collections
import json

NEVER = float("inf")
# What of a Seq is the same for all that one daemon gave out: each start begins 2^32 above the one before.
BOOT_SHIFT = 32
# The namespace of counters, of which a look gives the number and not a hash; each request adds 1 to one of them.
TALLIES = "tallies"


class Request:
    """One write request as its worker logged it."""

    def __init__(self, worker, number, durability):
        self.worker, self.number, self.durability = worker, number, durability
        self.seq = None  # unknown
        self.steps = []  # (namespace, key or None for all of them, state)
        self.before = NEVER  # of an unknown outcome: if it was done, its Seq is below this one

    def states(self, keys_of):
        """What it leaves in each key that it touches."""
        states = {}
        for namespace, key, state in self.steps:
            if namespace == TALLIES:
                continue
            if key is None:
                states.update({(namespace, each): state for each in keys_of[namespace]})
            else:
                states[(namespace, key)] = state
        return states


class Log:
    """Reads a worker's log as it grows."""

    def __init__(self, worker, path):
        self.worker, self.path, self.offset = worker, path, 0

    def read(self):
        """The requests that were begun since the last reading, and the Seqs that commits and flushes promised.

        To be called while the worker is paused or dead, when nothing of it is under way.
        """
        requests, settled = {}, []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            lines, newline, _ = file.read().rpartition(b"\n")
        self.offset += len(lines) + len(newline)
        for line in lines.splitlines():
            line = json.loads(line)
            if "settled" in line:
                settled.append(line["settled"])
            elif "namespace" in line:
                request = requests.get(line["request"])
                if request is None:
                    request = requests[line["request"]] = Request(self.worker, line["request"], line["durability"])
                request.steps.append((line["namespace"], line["key"], line["state"]))
            elif line["seq"] == "refused":
                del requests[line["request"]]
            else:
                requests[line["request"]].seq = line["seq"]
        following = NEVER
        for request in sorted(requests.values(), key=lambda request: request.number, reverse=True):
            if request.seq is None:
                request.before = following
            else:
                following = min(following, request.seq)
        return list(requests.values()), settled


class Timeline:
    """What may have become of one key since the last look."""

    def __init__(self, base):
        self.acknowledged = [(0, base)]  # (Seq, state), rising
        self.unknown = []  # (before, state)

    def explains(self, state):
        seq, last = self.acknowledged[-1]
        return state == last or any(before > seq and state == each for before, each in self.unknown)


class Checker:
    """Compares looks at a store with what its writers were told in between."""

    def __init__(self):
        self.base = {}  # (namespace, key): state; a deleted key is not there
        self.highest = 0
        self.acknowledged = self.unknown = self.lost = self.given_up = self.settled_by_unknown = 0

    def check(self, final, requests, settled, from_memory=False):
        """Sentences about everything in the store that nothing explains; `final` is the new base.

        `from_memory`: the daemon that died answered writes before they had left its memory.
        """
        wrong = []
        done = sorted((request for request in requests if request.seq is not None), key=lambda request: request.seq)
        unknown = [request for request in requests if request.seq is None]
        self.acknowledged += len(done)
        self.unknown += len(unknown)
        for earlier, later in zip([None, *done], done):
            if later.seq <= (earlier.seq if earlier else self.highest):
                wrong.append(f"Seq {later.seq} was given to request {later.number} of {later.worker} and before")
        timelines = self.timelines(final, done, unknown)
        bad = {name for name, line in timelines.items() if not line.explains(final.get(name, "deleted"))}
        if bad and from_memory:
            bad = self.try_earlier_cuts(final, done, timelines, settled, bad)
        for namespace, key in sorted(bad):
            line = timelines[(namespace, key)]
            seq, state = line.acknowledged[-1]
            found = final.get((namespace, key), "deleted")
            wrong.append(f"{namespace} {key}: is {found}, Seq {seq} left it {state}, {len(line.unknown)} unknown")
            self.lost += 1
        for name, line in timelines.items():
            self.settled_by_unknown += name not in bad and final.get(name, "deleted") != line.acknowledged[-1][1]
        wrong.extend(self.tallies(final, requests, from_memory))
        wrong.extend(halves(final))
        self.highest = max([self.highest, *(request.seq for request in done[-1:])])
        self.base = final
        return wrong

    def timelines(self, final, done, unknown):
        keys_of = collections.defaultdict(set)
        for namespace, key in [*self.base, *final]:
            if namespace != TALLIES:
                keys_of[namespace].add(key)
        for request in [*done, *unknown]:
            for namespace, key, _ in request.steps:
                if key is not None and namespace != TALLIES:
                    keys_of[namespace].add(key)
        timelines = {}
        for namespace, keys in keys_of.items():
            for key in keys:
                timelines[(namespace, key)] = Timeline(self.base.get((namespace, key), "deleted"))
        for request in done:
            request.effects = request.states(keys_of)
            for name, state in request.effects.items():
                timelines[name].acknowledged.append((request.seq, state))
        for request in unknown:
            for name, state in request.states(keys_of).items():
                timelines[name].unknown.append((request.before, state))
        return timelines

    def tallies(self, final, requests, from_memory):
        """Counters whose number is less than what was acknowledged, or more than what was sent."""
        raised = [(request.steps[0][1], request.seq) for request in requests if request.steps[0][0] == TALLIES]
        names = {key for namespace, key in [*self.base, *final] if namespace == TALLIES} | {key for key, _ in raised}
        for name in names:
            before, now = self.base.get((TALLIES, name), 0), final.get((TALLIES, name), 0)
            most = before + sum(key == name for key, _ in raised)
            least = before if from_memory else before + sum(key == name and seq is not None for key, seq in raised)
            if not least <= now <= most:
                self.lost += max(0, least - now)
                yield f"{name} is {now}: it was {before}, and at least {least - before}, at most {most - before} came"

    def try_earlier_cuts(self, final, done, timelines, settled, bad):
        """Takes back the dead daemon's writes, last one first, while they were not promised to survive it."""
        boots = sorted({request.seq >> BOOT_SHIFT for request in done})
        own = [request for request in done if request.seq >> BOOT_SHIFT == boots[0]]
        kept = [request.seq for request in own if request.durability in ("Buffered", "Synced")]
        promised = max([0, *kept, *(seq for seq in settled if seq >> BOOT_SHIFT <= boots[0])])
        left, before = set(bad), {name: line.acknowledged for name, line in timelines.items()}
        for taken, request in enumerate(reversed(own), 1):
            if request.seq <= promised:
                break
            for name in request.effects:
                line = timelines[name]
                line.acknowledged = [each for each in line.acknowledged if each[0] != request.seq]
                left.discard(name)
                if not line.explains(final.get(name, "deleted")):
                    left.add(name)
            if not left:
                self.given_up += taken
                return left
        for name, acknowledged in before.items():
            timelines[name].acknowledged = acknowledged
        return bad


def halves(final):
    """Both keys of a pair are only ever written by one request."""
    for (namespace, key), state in final.items():
        if key.startswith("pair-"):
            other = {"chunks": "tenant_a/chunks", "tenant_a/chunks": "chunks"}[namespace]
            if final.get((other, key)) != state:
                yield f"half a request: {key} is {state} in {namespace}, {final.get((other, key))} in {other}"
