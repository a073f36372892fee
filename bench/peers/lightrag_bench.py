#!/usr/bin/env python3
"""LightRAG's side of the benchmark: its own JsonKVStorage and shared_storage, in as many worker processes as are asked for.

Driven by src/peers/lightrag.rs: a JSON object a line on standard input, one on standard output for each. The processes are
laid out as lightrag-gunicorn does: initialize_share_data in the master, then a fork for each worker, and every worker
initializes the storage for itself. All times are taken here, around LightRAG's own calls; what JSON lines cost is in none.
"""

import asyncio
import json
import os
import sys
import time
import traceback

# What LightRAG prints goes to the log: standard output is the answers' alone.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from lightrag.kg import shared_storage  # noqa: E402
from lightrag.kg.json_kv_impl import JsonKVStorage  # noqa: E402
from lightrag.utils import logger  # noqa: E402

logger.setLevel("WARNING")
now = time.perf_counter_ns


class Worker:
    """One process: a storage of its own over the shared data, and an event loop for all its commands."""

    def __init__(self, options):
        self.namespace, self.content = options["namespace"], options["content"]
        config = {"working_dir": options["directory"]}
        self.storage = JsonKVStorage(
            namespace=self.namespace, workspace="", global_config=config, embedding_func=None
        )
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.storage.initialize())

    def row(self, number):
        return {"id": f"{number:010d}", "content": self.content}

    def rows(self, first, count):
        return {f"key-{number:010d}": self.row(number) for number in range(first, first + count)}

    def do(self, command):
        return self.loop.run_until_complete(getattr(self, "op_" + command["op"])(command))

    async def op_get(self, command):
        keys, took = [f"key-{number:010d}" for number in command["numbers"]], []
        for key in keys:
            began = now()
            row = await self.storage.get_by_id(key)
            took.append(now() - began)
            assert row and row["content"], key
        return {"ns": took}

    async def op_flag(self, command):
        took = []
        for _ in range(command["count"]):
            began = now()
            self.storage.storage_updated.value
            took.append(now() - began)
        return {"ns": took}

    async def op_upsert(self, command):
        """`count` calls of `records` records each, from number `first` on."""
        took, records = [], command.get("records", 1)
        for call in range(command["count"]):
            rows = self.rows(command["first"] + call * records, records)
            began = now()
            await self.storage.upsert(rows)
            took.append(now() - began)
        return {"ns": took}

    async def op_commit(self, command):
        """Makes one change durable, as far as LightRAG does: the change and index_done_callback, `count` times."""
        took = []
        for call in range(command["count"]):
            rows = self.rows(command["first"] + call, 1)
            began = now()
            await self.storage.upsert(rows)
            await self.storage.index_done_callback()
            took.append(now() - began)
        return {"ns": took}

    async def op_flush(self, command):
        """index_done_callback alone, after a change that makes it necessary."""
        await self.storage.upsert(self.rows(0, 1))
        began = now()
        await self.storage.index_done_callback()
        return {"ns": [now() - began], "bytes": os.path.getsize(self.storage._file_name)}

    async def op_bulk(self, command):
        """Batches with a callback after each, until `total` records are in or `seconds` have passed."""
        took, done, until = [], 0, now() + int(command["seconds"] * 1e9)
        while done < command["total"] and now() < until:
            rows = self.rows(command["first"] + done, min(command["batch"], command["total"] - done))
            began = now()
            await self.storage.upsert(rows)
            await self.storage.index_done_callback()
            took.append(now() - began)
            done += len(rows)
        return {"ns": took, "done": done}

    async def op_lock(self, command):
        took = []
        for _ in range(command["count"]):
            began = now()
            async with shared_storage.get_storage_keyed_lock(command["key"], namespace="bench_lock"):
                pass
            took.append(now() - began)
        return {"ns": took}

    async def op_clear(self, command):
        await self.storage.drop()
        return {}

    async def op_memory(self, command):
        """Resident bytes of the process that holds the data, and of this one."""
        manager = shared_storage._manager
        holder = manager._process.pid if manager is not None else os.getpid()
        return {"holder": resident(holder), "worker": resident(os.getpid())}


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def guarded(do, *arguments):
    try:
        return do(*arguments)
    except BaseException as error:  # noqa: BLE001: it goes to the driver, whatever it is
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def worker_main(options, commands, answers):
    """A forked worker's life: a command, an answer."""
    worker = None

    def start():
        nonlocal worker
        worker = Worker(options)
        return {}

    with os.fdopen(commands) as commands, os.fdopen(answers, "w", buffering=1) as answers:
        print(json.dumps(guarded(start)), file=answers)
        for line in commands:
            print(json.dumps(guarded(worker.do, json.loads(line))), file=answers)


class Master:
    """Starts the workers and passes commands on to them."""

    def start(self, options):
        shared_storage.initialize_share_data(workers=options["workers"])
        self.workers = []
        for _ in range(options["workers"]):
            command_in, command_out = os.pipe()
            answer_in, answer_out = os.pipe()
            if os.fork() == 0:
                for other_commands, other_answers in self.workers:
                    other_commands.close()
                    other_answers.close()
                os.close(command_out)
                os.close(answer_in)
                worker_main(options, command_in, answer_out)
                os._exit(0)
            os.close(command_in)
            os.close(answer_out)
            self.workers.append((os.fdopen(command_out, "w", buffering=1), os.fdopen(answer_in)))
            # The first one loads the file; the others must find it loaded.
            json.loads(self.workers[-1][1].readline())
        return {}

    def all(self, command):
        among = self.workers[: command["among"]]
        line = json.dumps(command)
        began = now()
        for commands, _ in among:
            print(line, file=commands)
        answers = [json.loads(answers.readline()) for _, answers in among]
        seconds = (now() - began) / 1e9
        for answer in answers:
            if "error" in answer:
                return answer
        return {"seconds": seconds, "answers": answers}


def main():
    master = Master()
    for line in sys.stdin:
        command = json.loads(line)
        do = master.start if command["op"] == "start" else master.all
        print(json.dumps(guarded(do, command)), file=ANSWERS)
    for commands, answers in getattr(master, "workers", []):
        commands.close()
        answers.read()
    shared_storage.finalize_share_data()


if __name__ == "__main__":
    main()
