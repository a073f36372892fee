"""A client of Commonhold in Python's standard library alone, written from PROTOCOL.md and nothing else.

It is the proof that PROTOCOL.md is enough, and a beginning for whoever writes a client in another language. It takes the
messages from the tables of that text, which lies beside this file, so it knows whatever is documented there. It is not
made to be fast. Its tests, with the golden frames and with a real daemon, are in reference_client_test.py.

    with Session("rag_storage") as session:
        session.put("notes", "k1", {"a": 1})
        print(session.get("notes", "k1"))

A struct is a dict by field. A variant of an enum is a Variant: its name, and its fields as a dict, as one value for a
variant like `Write (Write)`, or None. `Seq` and integers are int, text is str, a missing `T?` is None.
"""

import json
import os
import pathlib
import secrets
import select
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

PROTOCOL = pathlib.Path(__file__).with_name("PROTOCOL.md")

MAGIC = b"COMNHOLD"
VERSIONS = (1, 4)
HELLO = struct.Struct("<8sHHIQQ16sQQ")
HEADER = struct.Struct("<IQB")
REQUEST, ANSWER, PART, EVENT, CANCEL = 1, 2, 3, 4, 5
INTEGERS = {name: struct.Struct(code) for name, code in [("u16", "<H"), ("u32", "<I"), ("u64", "<Q"), ("i64", "<q")]}
INTEGERS["Seq"] = INTEGERS["u64"]
FLOAT = struct.Struct("<d")


class Variant(NamedTuple):
    """One variant of an enum."""

    name: str
    value: Any = None


class ProtocolError(Exception):
    """The bytes are not what PROTOCOL.md says."""


class Fault(Exception):
    """The daemon answered that it did not do what was asked. `name` and `fields` are those of the table of faults."""

    def __init__(self, fault):
        super().__init__(f"{fault.name} {fault.value or ''}".rstrip())
        self.name, self.fields = fault


class Closed(Fault):
    """The daemon closed the connection, and said why."""


# --- The tables: what a message is made of.


class Tables:
    """The messages, read from the tables of PROTOCOL.md."""

    def __init__(self, text):
        self.structs, self.enums, self.limits = {}, {}, {}
        for section in text.split("\n### ")[1:]:
            name, _, body = section.partition("\n")
            head, *rows = [self.cells(line) for line in body.split("\n## ")[0].splitlines() if self.cells(line)]
            if head[0] == "tag":
                self.enums[name] = {int(row[0]): (row[1], self.fields(row[2])) for row in rows}
            else:
                self.structs[name] = [(row[0], row[1]) for row in rows]
        for row in filter(None, map(self.cells, text.splitlines())):
            if row[0].startswith("`MAX_") or row[0].startswith("`HELLO_"):
                self.limits[row[0].strip("`")] = int(row[1])

    @staticmethod
    def cells(line):
        if not line.startswith("| ") or not line.endswith(" |"):
            return None
        return [cell.strip() for cell in line[2:-2].split(" | ")]

    @staticmethod
    def fields(cell):
        """None, the one type of a variant without field names, or (field, type) pairs."""
        if cell == "-":
            return None
        if cell.startswith("("):
            return cell[1:-1]
        return [tuple(field.split(": ")) for field in cell.split(", ")]

    def tag(self, enum, name):
        for tag, (known, fields) in self.enums[enum].items():
            if known == name:
                return tag, fields
        raise ProtocolError(f"{enum} has no variant {name}")


TABLES = Tables(PROTOCOL.read_text(encoding="utf-8"))


def encode(of, value):
    """The bytes of a value of the type `of`, as the tables name types."""
    if of.endswith("?"):
        return b"\0" if value is None else b"\1" + encode(of[:-1], value)
    if of.startswith("["):
        return INTEGERS["u64"].pack(len(value)) + b"".join(encode(of[1:-1], each) for each in value)
    if of == "bool":
        return bytes([bool(value)])
    if of == "f64":
        return FLOAT.pack(value)
    if of == "u128":
        return value.to_bytes(16, "little")
    if of in INTEGERS:
        return INTEGERS[of].pack(value)
    if of == "text":
        text = value.encode()
        return INTEGERS["u64"].pack(len(text)) + text
    if of in TABLES.structs:
        return b"".join(encode(field_of, value[field]) for field, field_of in TABLES.structs[of])
    tag, fields = TABLES.tag(of, value.name)
    head = INTEGERS["u32"].pack(tag)
    if fields is None:
        return head
    if isinstance(fields, str):
        return head + encode(fields, value.value)
    return head + b"".join(encode(field_of, value.value[field]) for field, field_of in fields)


class Reader:
    """Takes values from bytes, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise ProtocolError(f"{count} bytes are wanted at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, layout):
        return layout.unpack(self.take(layout.size))[0]

    def flag(self):
        flag = self.take(1)[0]
        if flag > 1:
            raise ProtocolError(f"{flag} is neither 0 nor 1")
        return flag == 1

    def read(self, of):
        if of.endswith("?"):
            return self.read(of[:-1]) if self.flag() else None
        if of.startswith("["):
            return [self.read(of[1:-1]) for _ in range(self.unpack(INTEGERS["u64"]))]
        if of == "bool":
            return self.flag()
        if of == "f64":
            return self.unpack(FLOAT)
        if of == "u128":
            return int.from_bytes(self.take(16), "little")
        if of in INTEGERS:
            return self.unpack(INTEGERS[of])
        if of == "text":
            return self.take(self.unpack(INTEGERS["u64"])).decode()
        if of in TABLES.structs:
            return {field: self.read(field_of) for field, field_of in TABLES.structs[of]}
        tag = self.unpack(INTEGERS["u32"])
        if tag not in TABLES.enums[of]:
            raise ProtocolError(f"{of} {tag} is not known")
        name, fields = TABLES.enums[of][tag]
        if fields is None or isinstance(fields, str):
            return Variant(name, fields and self.read(fields))
        return Variant(name, {field: self.read(field_of) for field, field_of in fields})


def decode(of, body):
    """The message of a whole body."""
    reader = Reader(body)
    message = reader.read(of)
    if reader.at != len(body):
        raise ProtocolError(f"{len(body) - reader.at} bytes are left over")
    return message


# --- Hello and frames.


class Hello(NamedTuple):
    """What each side sends first. A client sends device and inode 0 to take whatever store answers."""

    lowest: int = VERSIONS[0]
    highest: int = VERSIONS[1]
    flags: int = 0
    device: int = 0
    inode: int = 0
    client: int = 0
    table_nonce: int = 0
    boot: int = 0

    def to_bytes(self):
        client = self.client.to_bytes(16, "little")
        return HELLO.pack(MAGIC, *self[:5], client, *self[6:])

    @classmethod
    def from_bytes(cls, data):
        magic, *fields = HELLO.unpack(data)
        if magic != MAGIC:
            raise ProtocolError(f"this is no daemon of Commonhold: it says {magic!r}")
        fields[5] = int.from_bytes(fields[5], "little")
        return cls(*fields)


def frame(number, kind, body=b""):
    """A frame: length, request id, kind, body."""
    return HEADER.pack(9 + len(body), number, kind) + body


def split(data):
    """Request id, kind and body of the first frame, and the bytes after it; None while it is not whole."""
    if len(data) < HEADER.size:
        return None
    length, number, kind = HEADER.unpack_from(data)
    if not 9 <= length <= TABLES.limits["MAX_FRAME_BYTES"]:
        raise ProtocolError(f"a frame of {length} bytes")
    if len(data) < 4 + length:
        return None
    return number, kind, data[HEADER.size : 4 + length], data[4 + length :]


# --- A session.


def space(namespace, workspace="", kind="Persistent"):
    return {"kind": Variant(kind), "workspace": workspace, "namespace": namespace}


def op(name, index=0, condition=Variant("Always"), **fields):
    """One operation of a write, in the namespace that the request lists at `index`."""
    _, known = TABLES.tag("Op", name)
    given = {"space": index, "condition": condition, **fields}
    return Variant(name, {field: given[field] for field, _ in known})


class Session:
    """One connection to the daemon of the store in `directory`."""

    def __init__(self, directory, hello=None, timeout_s=30.0):
        self.client = hello.client if hello else secrets.randbits(128)
        self.number = self.last_id = self.greatest = 0
        self.unanswered = {}  # number: (first boot, greatest Seq known then, write)
        self.buffer, self.answers, self.parts = b"", {}, {}
        self.socket = self.connect(os.fspath(directory), timeout_s)
        if hello is None:
            status = os.stat(directory)
            hello = Hello(device=status.st_dev, inode=status.st_ino, client=self.client)
        self.socket.sendall(hello.to_bytes())
        self.daemon = Hello.from_bytes(self.receive_exactly(HELLO.size))
        self.version = min(hello.highest, self.daemon.highest)

    @staticmethod
    def connect(directory, timeout_s):
        """Reaches the socket through the open directory where that works, since its path may be too long."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            through = f"/proc/self/fd/{descriptor}"
            base = through if os.path.exists(through) else directory
            until = time.monotonic() + timeout_s
            while True:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.settimeout(timeout_s)
                try:
                    connection.connect(base + "/.commonhold/socket")
                    return connection
                except BlockingIOError:  # the daemon has not yet accepted those before
                    connection.close()
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.01)
                except BaseException:
                    connection.close()
                    raise
        finally:
            os.close(descriptor)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # What goes out.

    def send(self, verb, value=None, deadline_ms=0):
        """Sends a request and does not wait; returns its id."""
        self.last_id += 1
        body = encode("Request", {"deadline_ms": deadline_ms, "verb": Variant(verb, value)})
        self.transmit(frame(self.last_id, REQUEST, body))
        return self.last_id

    def cancel(self, number):
        """Wishes that a request is not begun; it is answered all the same."""
        self.transmit(frame(number, CANCEL))

    def transmit(self, data):
        """Reads while it writes: or, with many answers untaken, both sides may wait for each other."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN | select.POLLOUT)
        timeout_s = self.socket.gettimeout()
        while data:
            events = poll.poll(timeout_s and timeout_s * 1000)
            if not events:
                raise TimeoutError("the daemon takes nothing")
            if events[0][1] & select.POLLIN:
                self.receive_some()
            if events[0][1] & (select.POLLOUT | select.POLLERR):
                data = data[self.socket.send(data) :]

    # What comes in.

    def receive_exactly(self, count):
        while len(self.buffer) < count:
            self.receive_some()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def receive_some(self):
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the daemon closed the connection")
        self.buffer += data

    def receive_frame(self):
        """The next frame: answers and parts are kept until they are asked for, what closes the connection is raised."""
        while (found := split(self.buffer)) is None:
            self.receive_some()
        number, kind, body, self.buffer = found
        if kind == EVENT:
            tag = int.from_bytes(body[:4], "little")
            if tag in TABLES.enums["Event"]:
                raise Closed(decode("Event", body).value)
        elif kind == PART:
            self.parts.setdefault(number, []).append(decode("Answer", body))
        elif kind == ANSWER:
            self.answers[number] = join(self.parts.pop(number, []), decode("Answer", body))
        else:
            raise ProtocolError(f"a daemon does not send frames of kind {kind}")
        return number

    def wait(self, number):
        """The answer to a request, in one piece; raises the fault that it is."""
        while number not in self.answers:
            self.receive_frame()
        answer = self.answers.pop(number)
        if answer.name == "Fault":
            raise Fault(answer.value)
        return answer

    def ask(self, verb, value=None, deadline_ms=0):
        return self.wait(self.send(verb, value, deadline_ms))

    # What most want.

    def send_write(self, spaces, ops, durability=None, deadline_ms=0):
        self.number += 1
        settled = min(self.unanswered, default=self.number)
        write = {"client": self.client, "number": self.number, "settled": settled, "if_token": None}
        write |= {"durability": durability and Variant(durability), "spaces": spaces, "ops": ops}
        self.unanswered[self.number] = ({"boot": self.daemon.boot, "after": self.greatest}, write)
        return self.send("Write", write, deadline_ms)

    def write(self, spaces, ops, durability=None):
        request = self.send_write(spaces, ops, durability)
        return self.written(self.number, request)

    def written(self, number, request):
        """Waits for the answer to the write of this number; from then on it need not be sent again."""
        try:
            written = self.wait(request).value
        except Fault:
            self.unanswered.pop(number)
            raise
        self.unanswered.pop(number)
        self.greatest = max(self.greatest, written["seq"])
        return written

    def resume(self, lost):
        """Sends the writes again that a session of the same client has lost its connection over, and gives their answers."""
        self.number, self.greatest = lost.number, lost.greatest
        requests = {}
        for number, (earlier, write) in sorted(lost.unanswered.items()):
            if self.daemon.boot < earlier["boot"]:
                raise ProtocolError("the store has another journal: what became of the writes cannot be known")
            self.unanswered[number] = (earlier, write)
            requests[number] = self.send("WriteAgain", {"earlier": earlier, "write": write})
        return {number: self.written(number, request) for number, request in requests.items()}

    def put(self, namespace, key, value, **how):
        return self.write([space(namespace)], [op("Put", key=key, value=json.dumps(value), **how)])

    def delete(self, namespace, key, **how):
        return self.write([space(namespace)], [op("Delete", key=key, **how)])

    def get(self, namespace, key):
        found = self.ask("Get", {"space": space(namespace), "key": key}).value["found"]
        return found and json.loads(found["value"])

    def scan(self, namespace, prefix="", limit=0, values=True):
        """The records in insertion order, page by page."""
        cursor = None
        while True:
            asked = {"space": space(namespace), "cursor": cursor, "prefix": prefix, "limit": limit, "values": values}
            page = self.ask("Scan", asked).value
            yield from page["entries"]
            cursor = page["next"]
            if cursor is None:
                return


def join(parts, last):
    """The lists of an answer that came in parts, joined in the order they came."""
    if not parts or last.name == "Fault":
        return last
    joined = dict(last.value)
    for field, value in joined.items():
        if isinstance(value, list):
            joined[field] = [each for piece in [*parts, last] for each in piece.value[field]]
    return Variant(last.name, joined)


if __name__ == "__main__":
    # python3 reference_client.py STORE: how the daemon of a store is.
    with Session(sys.argv[1]) as asked:
        print(asked.ask("Status").value["json"])
