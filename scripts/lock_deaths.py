"""Kills those who hold a lock, one after another, while others wait for it: scripts/lock-deaths calls it.

Each process here waits for the same lock; who has it is killed with SIGKILL as soon as the next one waits, and so on. The
one that waited notes the moment at which it has the lock, on the clock that all processes share. Holders die in several
ways: at rest, with half a request sent, with a forked child that still has the socket, and as the command of
`commonhold lock`. Some who only wait are killed, too, at rest and with half a request sent.

What must be so is asserted: never two have the lock (each also takes a record lock of the operating system, which must
be free then), none who waits is forgotten, tokens rise, a write with a dead holder's token is refused and with the live
one's done, and in the end nothing is locked. How long it took is only told: machines are busy.
"""

import argparse
import fcntl
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "proto"))

import reference_client as wire  # noqa: E402

KEY = "the key"
GOAL_MS = 5.0
DEADLINE_S = 30.0  # for each thing that is waited for
LEFT_ALONE_S = 120  # nobody outlives a run that was killed for longer
# How a holder is killed, and how often of ten.
KINDS = ["at rest"] * 4 + ["mid-frame"] * 2 + ["with a forked child"] * 3 + ["as a command"]


class Failure(Exception):
    """Something is not as it should be."""


def wish(wait=True):
    return {"keys": [KEY], "shared": False, "owner": 1, "holds": [], "wait": wait}


# The processes that wait for the lock.


def say(**what):
    print(json.dumps(what), flush=True)


def be_alone(directory):
    """Nobody else thinks that it has the lock. The descriptor is opened before the socket, so that it is closed before the
    daemon can learn of the death of who has it; a record lock is not inherited by a forked child."""
    descriptor = os.open(pathlib.Path(directory).parent / "alone", os.O_RDWR | os.O_CREAT)

    def check():
        until = time.monotonic() + 0.2
        while True:
            try:
                return fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > until:
                    return say(error="another process has the lock, too")
                time.sleep(0.001)

    return check


def half_a_frame(session):
    body = wire.encode("Request", {"deadline_ms": 0, "verb": wire.Variant("Lock", wish())})
    session.socket.sendall(wire.frame(99, wire.REQUEST, body)[:-7])


def run_waiter(directory, kind):
    check = be_alone(directory)
    session = wire.Session(directory, timeout_s=LEFT_ALONE_S)
    number = session.send("Lock", wish())
    if kind == "waiter, mid-frame":
        half_a_frame(session)
    token = session.wait(number).value["token"]
    at = time.monotonic_ns()
    check()
    child = None
    if kind == "with a forked child":
        child = os.fork()
        if child == 0:
            signal.alarm(LEFT_ALONE_S)
            signal.pause()
    if kind == "mid-frame":
        half_a_frame(session)
    say(token=token, at=at, child=child)
    signal.alarm(LEFT_ALONE_S)
    signal.pause()


def run_command(directory):
    """What `commonhold lock` becomes."""
    be_alone(directory)()
    say(token=int(os.environ["COMMONHOLD_TOKEN"]), at=None, child=None)
    signal.alarm(LEFT_ALONE_S)
    signal.pause()


# Who starts and kills them.


class Waiter:
    def __init__(self, deaths, kind):
        self.kind = kind
        own = [sys.executable, str(pathlib.Path(__file__).resolve())]
        if kind == "as a command":
            command = [deaths.daemon_path, "--store", deaths.store, "lock", KEY, "--", *own, "--command", deaths.store]
        else:
            command = [*own, "--waiter", deaths.store, kind]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def told(self, timeout_s):
        """What it says when it has the lock; none if it does not."""
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return None
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"a waiter ({self.kind}) ended with {self.process.wait()}")
        told = json.loads(line)
        if "error" in told:
            raise Failure(told["error"])
        return told

    def kill(self):
        """The moment at which it was about to be killed, and that at which the system told of its death, if it does that."""
        death = os.pidfd_open(self.process.pid) if can_see_deaths() else None
        at = time.monotonic_ns()
        self.process.kill()
        if death is None:
            return at, None
        select.select([death], [], [], DEADLINE_S)
        dead_at = time.monotonic_ns()
        os.close(death)
        return at, dead_at

    def bury(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Deaths:
    def __init__(self, daemon, store, seed):
        self.daemon_path, self.store = daemon, store
        self.random = random.Random(seed)
        self.times = {}  # kind: milliseconds
        self.deaths = []  # milliseconds from the kill until the system told this process of the death
        self.since_death = []  # and from then on; less than nothing where the daemon was told sooner
        self.waiters_killed = 0
        self.sees_deaths = can_see_deaths()
        self.fences = True

    def start(self):
        command = [self.daemon_path, "serve", "--announce", "--idle-exit", "120s", "--", self.store]
        self.daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if self.daemon.stdout.readline().strip() != "ready":
            raise Failure("the daemon does not start")
        self.session = wire.Session(self.store)

    def stop(self):
        self.daemon.terminate()
        self.daemon.wait(DEADLINE_S)

    def parties(self):
        locks = [lock for lock in self.session.ask("Locks").value["list"] if lock["key"] == KEY]
        return (locks[0]["holders"], locks[0]["waiters"]) if locks else ([], [])

    def until(self, what, holds):
        until = time.monotonic() + DEADLINE_S
        while not holds():
            if time.monotonic() > until:
                raise Failure(f"{what}: not after {DEADLINE_S:.0f} s; {self.parties()}")
            time.sleep(0.002)

    def until_waiting(self, count):
        self.until(f"{count} wait", lambda: len(self.parties()[1]) == count)

    def next_kind(self):
        kinds = KINDS if self.sees_deaths else [kind for kind in KINDS if kind != "with a forked child"]
        return self.random.choice(kinds)

    def kill_a_waiter(self):
        """One that waits before the next one does, and dies there."""
        victim = Waiter(self, self.random.choice(["waiter", "waiter, mid-frame"]))
        self.until_waiting(1)
        if self.random.random() < 0.5:  # else it is still in the queue, or just not, when the holder dies
            victim.bury()
            self.until_waiting(0)
        self.waiters_killed += 1
        return victim

    def round(self, holder, told):
        """The holder dies, the next one has the lock."""
        victim = self.kill_a_waiter() if self.random.random() < 0.25 else None
        alive = 0 if victim is None or victim.process.poll() is not None else 1
        heir = Waiter(self, self.next_kind())
        self.until_waiting(1 + alive)
        if victim is not None:
            victim.bury()
        at, dead_at = holder.kill()
        heard = heir.told(DEADLINE_S)
        if heard is None:
            raise Failure(f"the holder died ({holder.kind}), and who waited has nothing: {self.parties()}")
        holder.bury()
        if told["child"]:
            os.kill(told["child"], signal.SIGKILL)
        if heard["at"] is not None and alive == 0:
            self.times.setdefault(holder.kind, []).append((heard["at"] - at) / 1e6)
            if dead_at is not None:
                self.deaths.append((dead_at - at) / 1e6)
                self.since_death.append((heard["at"] - dead_at) / 1e6)
        if heard["token"] <= told["token"]:
            raise Failure(f"token {heard['token']} after {told['token']}")
        self.check_fence(told["token"], heard["token"])
        return heir, heard

    def check_fence(self, dead, live):
        refused = self.write_with(dead)
        self.fences = refused != "Unsupported"
        if not self.fences:
            return
        if refused != "TokenNotLive":
            raise Failure(f"a write with token {dead}, whose holder is dead, was not refused as such but: {refused}")
        if (refused := self.write_with(live)) is not None:
            raise Failure(f"a write with the live token {live} was refused: {refused}")

    def write_with(self, token):
        """The name of the fault that refuses it; none if it was done."""
        write = {"client": 0, "number": 0, "settled": 0, "durability": None, "if_token": token}
        write |= {"spaces": [wire.space("state")], "ops": [wire.op("Put", key="k", value=str(token))]}
        try:
            self.session.ask("Write", write)
            return None
        except wire.Fault as fault:
            return fault.name

    def run(self, count):
        holder = Waiter(self, self.next_kind())
        told = holder.told(DEADLINE_S)
        try:
            for _ in range(count):
                holder, told = self.round(holder, told)
        finally:
            holder.bury()
            if told and told["child"]:
                os.kill(told["child"], signal.SIGKILL)
        self.until("nothing is locked", lambda: not self.session.ask("Locks").value["list"])


def can_see_deaths():
    """Whether this kernel gives descriptors of processes, by which the daemon sees that one has died."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        return True
    except (AttributeError, OSError):
        return False


def percentile(sorted_times, percent):
    return sorted_times[min(len(sorted_times) - 1, len(sorted_times) * percent // 100)]


def report(deaths, count):
    print(f"{count} holders killed, {deaths.waiters_killed} waiters; never two had the lock, and none was forgotten")
    if not deaths.sees_deaths:
        print("this kernel has no pidfd: holders with a forked child were left out, their locks end with the child")
    if not deaths.fences:
        print("this daemon knows no fenced writes: nothing was said about them")
    print(f"{'hand-over, ms':<26} {'n':>5} {'p50':>8} {'p99':>8} {'max':>8}")
    everything = sorted(time for times in deaths.times.values() for time in times)
    parts = [("- until the death is told", deaths.deaths), ("- from then on", deaths.since_death)]
    for kind, times in [*sorted(deaths.times.items()), ("all", everything), *(part for part in parts if part[1])]:
        times = sorted(times)
        row = [percentile(times, 50), percentile(times, 99), times[-1]]
        print(f"{kind:<26} {len(times):>5} " + " ".join(f"{time:>8.3f}" for time in row))
    p99 = percentile(everything, 99)
    print(f"goal, p99 within {GOAL_MS:.0f} ms: {'met' if p99 <= GOAL_MS else 'NOT MET'} ({p99:.3f} ms)")


def main():
    if sys.argv[1:2] == ["--waiter"]:
        return run_waiter(*sys.argv[2:])
    if sys.argv[1:2] == ["--command"]:
        return run_command(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=200, help="how many holders are killed")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--daemon", required=True, help="the program commonhold")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="commonhold-lock-deaths-") as directory:
        store = os.path.join(directory, "store")
        os.mkdir(store)
        deaths = Deaths(options.daemon, store, options.seed)
        deaths.start()
        try:
            deaths.run(options.count)
        except Failure as failure:
            print(f"FAILED (seed {options.seed}): {failure}")
            return 1
        finally:
            deaths.stop()
        report(deaths, options.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
