"""Kills the real daemon, round after round, in the midst of the work of several processes, and checks what is left.

scripts/crash-loop builds what it needs and calls it. Standard library only. In each round a daemon is started on the
same store, the records are compared with what the workers were told (crash_check.py), the workers write on, and when
the daemon says that it has reached the point wanted in this round it gets SIGKILL. docs/reliability.md tells the rest.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import verify
from crash_check import TALLIES, Checker, Log

# The points that src/engine names, by phase, and the greatest count of one that a round waits for.
POINTS = {
    "load": {"load-built": 1, "load-begun": 1, "load-read": 3, "load-applied": 1},
    "append": {"append-before": 300, "append-torn": 300, "append-after": 300},
    "sync": {"sync-before": 6, "sync-after": 6},
    "flush": {
        "flush-torn": 5,
        "flush-written": 5,
        "flush-intended": 5,
        "flush-linked": 5,
        "flush-renamed": 5,
        "flush-named": 5,
        "flush-done": 5,
    },
    "drop": {"drop-removed": 1},
}
# A run in which one of these did not occur has not shown what it should.
REQUIRED = ["load", "append", "sync", "flush"]
ANYWHERE = "anywhere"
SPACES = [("", "chunks"), ("", "docs"), ("tenant_a", "chunks"), ("", "scratch"), ("", TALLIES)]
DEADLINE_S = 60  # for each thing that is waited for
REACH_S = 10  # for a point to be reached by the workers' doing


class Failure(Exception):
    """Something is not as it should be."""


class Worker:
    """A process of examples/storm.rs."""

    def __init__(self, loop, number):
        self.name = f"worker {number}"
        self.loop, self.paused, self.orders = loop, 0, 1
        log = loop.scratch / f"worker-{number}.log"
        log.touch()
        self.log = Log(self.name, log)
        self.errors = loop.scratch / f"worker-{number}.err"
        command = [loop.options.storm, loop.store, str(number), str(loop.random.getrandbits(32)), log]
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for _ in self.process.stdout:
            self.paused += 1

    def order(self, word):
        self.orders += word == "pause"
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failure(f"{self.name} ended by itself: {self.errors.read_text()[-400:]}") from None

    def is_paused(self):
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended by itself: {self.errors.read_text()[-400:]}")
        return self.paused >= self.orders

    def kill(self):
        self.process.kill()
        self.process.wait()


class Loop:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.store, self.order_file = scratch / "store", scratch / "faultpoint"
        self.store.mkdir()
        self.random = random.Random(options.seed)
        self.checker, self.workers, self.dead_logs = Checker(), [], []
        self.daemon, self.spawned, self.from_memory = None, 0, False
        self.kills, self.points, self.killed_workers = collections.Counter(), collections.Counter(), 0
        self.waiting_points = []
        self.durabilities = ["buffered", "buffered", "synced"]
        if "- memory:" in self.help_of("serve"):
            self.durabilities.append("memory")
        # One format for the whole run: both are JSON that Python reads.
        self.format = self.random.choice(["lines", "pretty"])

    def help_of(self, command):
        return subprocess.run([self.options.daemon, command, "--help"], capture_output=True, text=True).stdout

    # --- The daemon.

    def spawn_daemon(self):
        durability = self.random.choice(self.durabilities)
        self.serves_from_memory = (self.options.durability or durability) == "memory"
        command = [self.options.daemon, "--quiet", "serve", self.store, "--file-format", self.format]
        command += ["--durability", self.options.durability or durability]
        if self.random.random() < 0.5:
            command += ["--preload", "all"]
        with open(self.scratch / "daemon.err", "ab") as errors:
            self.daemon = subprocess.Popen(
                command,
                env={**os.environ, "COMMONHOLD_FAULTPOINTS": str(self.order_file)},
                stdout=errors,
                stderr=errors,
            )

    def is_serving(self):
        if self.daemon.poll() is not None:
            raise Failure(f"the daemon ended by itself with exit code {self.daemon.returncode}")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.store / ".commonhold" / "socket"))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            return True

    def has_reached(self, point):
        return self.order_file.read_text() == f"reached {point}\n"

    def want(self, point):
        """Asks the daemon to stop at a point; none takes that back."""
        phase = next((phase for phase, points in POINTS.items() if point in points), None)
        count = self.random.randint(1, POINTS[phase][point]) if phase else 0
        new = self.order_file.with_suffix(".new")
        new.write_text(f"want {point} {count}\n" if phase else "none\n")
        new.replace(self.order_file)
        return phase

    def kill_daemon(self, phase, point):
        time.sleep(self.random.choice([0, self.random.uniform(0, 0.03)]))
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        self.kills[phase] += 1
        self.points[point] += 1
        self.from_memory |= self.serves_from_memory

    def wait_until(self, what, condition, deadline_s=DEADLINE_S, required=True):
        until = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > until:
                if required:
                    raise Failure(f"waited {deadline_s} s for {what}")
                return False
            time.sleep(0.001)
        return True

    # --- A round.

    def next_point(self):
        """All of them in turn, in an order of chance, and in between some moment that no point names."""
        if not self.waiting_points:
            self.waiting_points = [point for points in POINTS.values() for point in points] + [ANYWHERE] * 2
            self.random.shuffle(self.waiting_points)
        return self.waiting_points.pop()

    def round(self):
        point = self.next_point()
        if point in POINTS["load"]:
            self.kill_while_loading(point)
            point = ANYWHERE
        self.want(None)
        self.spawn_daemon()
        self.wait_until("the daemon to serve", self.is_serving)
        while len(self.workers) < self.options.workers:
            self.spawned += 1
            self.workers.append(Worker(self, self.spawned))
        self.check()
        phase = self.want(point) or ANYWHERE
        for worker in self.workers:
            worker.order("go")
        self.kill_a_worker_sometimes()
        if phase == ANYWHERE:
            time.sleep(self.random.uniform(0.02, 0.5))
        elif not self.wait_until(point, lambda: self.has_reached(point), REACH_S, required=False):
            phase = point = ANYWHERE
        self.kill_daemon(phase, point)
        for worker in self.workers:
            worker.order("pause")

    def kill_while_loading(self, point):
        self.want(point)
        self.spawn_daemon()
        self.wait_until(point, lambda: self.has_reached(point) or self.is_serving())
        if self.has_reached(point):
            self.kill_daemon("load", point)
        else:
            self.kill_daemon(ANYWHERE, ANYWHERE)

    def kill_a_worker_sometimes(self):
        if self.random.random() < 0.15:
            time.sleep(self.random.uniform(0, 0.1))
            worker = self.workers.pop(self.random.randrange(len(self.workers)))
            worker.kill()
            self.dead_logs.append(worker.log)
            self.killed_workers += 1

    # --- What is left.

    def check(self):
        for worker in self.workers:
            self.wait_until(f"{worker.name} to pause", worker.is_paused)
        requests, settled = [], []
        for log in [*self.dead_logs, *(worker.log for worker in self.workers)]:
            begun, promised = log.read()
            if log not in self.dead_logs and any(request.seq is None for request in begun):
                raise Failure(f"{log.worker} lives, and does not know what became of all its writes")
            requests += begun
            settled += promised
        self.dead_logs.clear()
        wrong = self.checker.check(self.look(), requests, settled, self.from_memory and not self.options.expect_all)
        self.from_memory = False
        if wrong:
            raise Failure("\n".join(["after a kill:", *wrong[:20]]))

    def look(self):
        """Every record of the store: (namespace, key): state."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            exports = list(pool.map(lambda space: self.export(*space), SPACES))
        found = {}
        for (workspace, namespace), records in zip(SPACES, exports):
            found.update(states(workspace, namespace, records))
        return found

    def export(self, workspace, namespace):
        command = [self.options.daemon, "--store", self.store, *(["--workspace", workspace] if workspace else [])]
        ended = subprocess.run([*command, "export", namespace, "-"], capture_output=True, check=False)
        if ended.returncode != 0:
            raise Failure(f"export {namespace}: exit {ended.returncode}: {ended.stderr.decode(errors='replace')}")
        return json.loads(ended.stdout)

    def finish(self):
        self.want(None)
        self.spawn_daemon()
        self.wait_until("the daemon to serve", self.is_serving)
        self.check()
        for worker in self.workers:
            worker.process.stdin.close()
            if worker.process.wait(DEADLINE_S) != 0:
                raise Failure(f"{worker.name} failed: {worker.errors.read_text()[-400:]}")
        stop = subprocess.run([self.options.daemon, "--quiet", "--store", self.store, "stop"], check=False)
        if stop.returncode != 0 or self.daemon.wait(DEADLINE_S) != 0:
            raise Failure(f"stop ended with {stop.returncode}, the daemon with {self.daemon.returncode}")
        check = [self.options.daemon, "--store", self.store, "check", "--deep"]
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            raise Failure(f"check --deep ended with {checked.returncode}: {checked.stdout}{checked.stderr}")
        for workspace, namespace in SPACES:
            path = self.store / workspace / f"kv_store_{namespace}.json"
            # The last thing that was done to it may have been a drop.
            records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if list(records.items()) != list(self.export(workspace, namespace).items()):
                raise Failure(f"json.load of {path} is not what export gives")
            if not states(workspace, namespace, records).items() <= self.checker.base.items():
                raise Failure(f"{path} does not hold what the daemon last answered")

    def report(self, rounds, seconds):
        checker = self.checker
        print(f"rounds                {rounds}, in {seconds:.0f} s")
        print(f"kills by phase        {', '.join(f'{phase} {self.kills[phase]}' for phase in [*POINTS, ANYWHERE])}")
        print(f"kills by point        {', '.join(f'{name} {count}' for name, count in sorted(self.points.items()))}")
        print(f"workers killed        {self.killed_workers}")
        print(f"acknowledged writes   {checker.acknowledged}, and {checker.unknown} of killed workers, of unknown outcome")
        print(f"given up by `memory`  {checker.given_up}")
        print(f"lost writes           {checker.lost}")


def states(workspace, namespace, records):
    """What the checker compares: (namespace, key): state."""
    place = f"{workspace}/{namespace}" if workspace else namespace
    if namespace == TALLIES:
        return {(place, key): record["count"] for key, record in records.items()}
    return {(place, key): verify.state(records, key) for key in records}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--daemon", required=True, help="the commonhold binary, built with the feature faultpoints")
    parser.add_argument("--storm", required=True, help="the binary of examples/storm.rs")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.getrandbits(31), help="of what is chosen by chance")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--durability", help="of every round, instead of one by chance")
    parser.add_argument("--expect-all", action="store_true", help="lose nothing, even with --durability memory")
    options = parser.parse_args()

    print(f"seed                  {options.seed}")
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="commonhold-crash-loop."))
    loop, began, rounds, failure = Loop(options, scratch), time.monotonic(), 0, None
    try:
        for rounds in range(1, options.rounds + 1):
            loop.round()
        loop.finish()
        missing = [phase for phase in REQUIRED if not loop.kills[phase]]
        if missing:
            raise Failure(f"no kill in the phases {missing}: more rounds are needed, or a point is no longer reached")
    except Failure as reason:
        failure = reason
    finally:
        for process in [loop.daemon, *(worker.process for worker in loop.workers)]:
            if process and process.poll() is None:
                process.kill()
                process.wait()
    loop.report(rounds, time.monotonic() - began)
    if failure is None:
        shutil.rmtree(scratch)
        print("all of it holds: nothing that was acknowledged is lost")
        return 0
    print(f"\nFAILED in round {rounds}: {failure}\nkept: {scratch}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
