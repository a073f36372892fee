#!/usr/bin/env python3
"""Tests of reference_client.py: the golden frames, and with COMMONHOLD_TEST_STORE the real daemon that serves that store.

Run by tests/reference_client.rs. Standard library only.
"""

import fcntl
import json
import os
import pathlib
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True
import reference_client as client  # noqa: E402
from reference_client import Fault, Hello, Session, Variant, op, space  # noqa: E402

STORE = os.environ.get("COMMONHOLD_TEST_STORE")
BODIES = {client.REQUEST: "Request", client.ANSWER: "Answer", client.PART: "Answer", client.EVENT: "Event"}


def golden():
    """Name and bytes of every golden file."""
    for path in sorted((pathlib.Path(__file__).parent / "golden").glob("*.hex")):
        lines = path.read_text(encoding="utf-8").splitlines()
        yield path.stem, bytes.fromhex("".join(line.split("#")[0] for line in lines))


class Golden(unittest.TestCase):
    def test_every_frame_is_read_and_written_again_byte_for_byte(self):
        seen = set()
        for name, data in golden():
            if name.startswith("hello"):
                self.assertEqual(Hello.from_bytes(data).to_bytes(), data, name)
                continue
            number, kind, body, rest = client.split(data)
            self.assertEqual(rest, b"", name)
            seen.add(kind)
            if kind == client.CANCEL:
                self.assertEqual(client.frame(number, kind), data, name)
                continue
            message = client.decode(BODIES[kind], body)
            self.assertEqual(client.frame(number, kind, client.encode(BODIES[kind], message)), data, name)
        self.assertEqual(seen, {1, 2, 3, 4, 5})

    def test_a_frame_that_is_cut_is_not_whole_and_a_message_that_is_cut_or_too_long_is_refused(self):
        for name, data in golden():
            if not name.startswith("hello"):
                self.assertIsNone(client.split(data[:-1]), name)
                _, kind, body, _ = client.split(data)
                if kind != client.CANCEL:
                    with self.assertRaises((client.ProtocolError, UnicodeDecodeError), msg=name):
                        client.decode(BODIES[kind], body[:-1])
                    with self.assertRaises(client.ProtocolError, msg=name):
                        client.decode(BODIES[kind], body + b"\0")

    def test_what_a_frame_says_is_what_its_comment_says(self):
        frames = dict(golden())
        request = client.decode("Request", client.split(frames["request-write"])[2])
        self.assertEqual(request["deadline_ms"], 30_000)
        write = request["verb"].value
        self.assertEqual((write["number"], write["settled"], write["if_token"]), (12, 11, 77))
        self.assertEqual(write["spaces"][1], space("full_docs", "tenant_a"))
        self.assertEqual(write["ops"][3], op("Delete", 1, Variant("IfSeq", 42), key="doc-2"))
        page = client.decode("Answer", client.split(frames["answer-page"])[2])
        self.assertEqual(page.value["next"], {"load": 2, "ordinal": 1_001, "key": "chunk-2"})


@unittest.skipUnless(STORE, "COMMONHOLD_TEST_STORE names no store")
class WithDaemon(unittest.TestCase):
    def setUp(self):
        self.session = self.connect()
        self.namespace = self.id().rsplit(".", 1)[1]

    def connect(self, hello=None):
        session = Session(STORE, hello)
        self.addCleanup(session.close)
        return session

    def refused(self, name, what, *arguments, **named):
        """The fields of the fault of this name that the call raises."""
        with self.assertRaises(Fault) as raised:
            what(*arguments, **named)
        self.assertEqual(raised.exception.name, name)
        return raised.exception.fields

    def put_text(self, key, text):
        return self.session.write([space(self.namespace)], [op("Put", key=key, value=text)])

    def get_many(self, keys):
        found = self.session.ask("GetMany", {"space": space(self.namespace), "keys": keys}).value["found"]
        return [each and each["value"] for each in found]

    # --- Hello.

    def test_the_hello_tells_store_version_and_boot(self):
        daemon, status = self.session.daemon, os.stat(STORE)
        self.assertEqual((daemon.device, daemon.inode), (status.st_dev, status.st_ino))
        self.assertEqual(daemon.client, self.session.client)
        self.assertGreater(daemon.boot, 0)
        self.assertEqual(self.session.version, client.VERSIONS[1])
        self.assertEqual(self.connect(Hello(client=7)).ask("Ping"), Variant("Done"))

    def test_an_old_client_is_served_and_one_from_the_future_is_not(self):
        old = self.connect(Hello(lowest=1, highest=1, client=7))
        self.assertEqual(old.version, 1)
        self.assertEqual(old.ask("Ping"), Variant("Done"))
        future = self.connect(Hello(lowest=90, highest=99, client=7))
        fields = self.refused("Version", future.receive_frame)
        self.assertEqual((fields["client_lowest"], fields["client_highest"]), (90, 99))

    def test_the_daemon_of_another_store_says_whose_it_is(self):
        stranger = self.connect(Hello(device=1, inode=1, client=7))
        fields = self.refused("OtherStore", stranger.receive_frame)
        self.assertEqual(fields["inode"], os.stat(STORE).st_ino)

    def test_what_is_no_hello_is_answered_and_the_connection_closed(self):
        with Session.connect(STORE, 30.0) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n".ljust(64, b"x"))
            data = b""
            while piece := raw.recv(1 << 16):
                data += piece
        self.assertEqual(Hello.from_bytes(data[:64]).inode, os.stat(STORE).st_ino)
        _, kind, body, rest = client.split(data[64:])
        self.assertEqual((kind, rest), (client.EVENT, b""))
        self.assertEqual(client.decode("Event", body).value.name, "Malformed")

    # --- Reading and writing.

    def test_values_come_back_as_they_were_put(self):
        texts = ["null", "1.10", "123456789012345678901234567890", "NaN", '{"a":[1,{"b":"\u00e9\U0001f600"}]}', '""']
        for number, text in enumerate(texts):
            self.assertEqual(self.put_text(f"k{number}", text)["new"], 1)
        self.assertEqual(self.get_many([f"k{number}" for number in range(len(texts))]), texts)
        written = self.session.put(self.namespace, "k0", {"b": 1, "a": [True, None]})
        self.assertEqual((written["new"], written["found"]), (0, 1))
        self.assertEqual(self.session.get(self.namespace, "k0"), {"b": 1, "a": [True, None]})
        self.assertEqual(self.session.delete(self.namespace, "k0")["found"], 1)
        self.assertIsNone(self.session.get(self.namespace, "k0"))

    def test_what_is_there_and_what_is_missing(self):
        self.session.put(self.namespace, "there", 1)
        where = {"space": space(self.namespace)}
        self.assertTrue(self.session.ask("Contains", where | {"key": "there"}).value["found"])
        self.assertFalse(self.session.ask("Contains", where | {"key": "not"}).value["found"])
        self.assertEqual(self.session.ask("Len", where).value["records"], 1)
        missing = self.session.ask("FilterMissing", where | {"keys": ["a", "there", ""]}).value["keys"]
        self.assertEqual(missing, [0, 2])

    def test_a_write_is_done_whole_or_not_at_all(self):
        spaces = [space(self.namespace), space(self.namespace, "tenant")]
        first = self.session.write(spaces, [op("Put", 0, key="a", value="1"), op("Put", 1, key="a", value="2")])
        self.assertEqual(first["new"], 2)
        ops = [op("Put", 0, key="b", value="1"), op("Put", 1, Variant("IfAbsent"), key="a", value="3")]
        fields = self.refused("ConditionFailed", self.session.write, spaces, ops)
        self.assertEqual(fields, {"operation": 1, "found": first["seq"]})
        self.assertIsNone(self.session.get(self.namespace, "b"))
        ops = [op("Put", 1, Variant("IfSeq", first["seq"]), key="a", value="3"), op("Clear", 0)]
        self.assertGreater(self.session.write(spaces, ops, "Synced")["seq"], first["seq"])
        self.assertIsNone(self.session.get(self.namespace, "a"))

    def test_a_scan_goes_on_from_its_cursor_in_the_order_of_insertion(self):
        keys = [f"{'even' if number % 2 == 0 else 'odd'}-{number}" for number in range(50)]
        self.session.write([space(self.namespace)], [op("Put", key=key, value="0") for key in keys])
        found = list(self.session.scan(self.namespace, limit=7))
        self.assertEqual([entry["key"] for entry in found], keys)
        self.assertEqual({entry["value"] for entry in found}, {"0"})
        odd = list(self.session.scan(self.namespace, prefix="odd-", limit=4, values=False))
        self.assertEqual([entry["key"] for entry in odd], keys[1::2])
        self.assertEqual({entry["value"] for entry in odd}, {None})

    def test_a_long_answer_comes_in_parts(self):
        text = json.dumps("x" * 400_000)
        for key in "abcdefgh":
            self.put_text(key, text)
        number = self.session.send("GetMany", {"space": space(self.namespace), "keys": [*"abcdefgh", "none"]})
        self.session.receive_frame()
        self.assertIn(number, self.session.parts)
        found = self.session.wait(number).value["found"]
        self.assertEqual([each and each["value"] for each in found], [text] * 8 + [None])

    def test_requests_take_effect_in_the_order_sent_and_are_matched_by_id(self):
        where = {"space": space(self.namespace), "key": "k"}
        sent = []
        for number in range(200):
            put = self.session.send_write([where["space"]], [op("Put", key="k", value=str(number))])
            sent.append((put, self.session.send("Get", where)))
        for number, (put, get) in reversed(list(enumerate(sent))):
            self.assertEqual(self.session.wait(get).value["found"]["value"], str(number))
            self.assertEqual(self.session.wait(put).name, "Written")

    # --- Operations that change a value where it lies.

    def test_a_write_that_is_sent_again_is_done_once_and_gets_its_first_answer(self):
        self.session.put("once", "k", {"n": 0})
        add = [op("Increment", key="k", field="n", by=Variant("Int", 1))]
        first = self.session.send_write([space("once")], add)
        self.session.send_write([space("once")], add)
        answer = self.session.wait(first).value
        self.session.close()
        hello = Hello(client=self.session.client)
        with self.connect(hello) as again:
            answers = again.resume(self.session)
            self.assertEqual(answers[self.session.number - 1], answer)
            self.assertGreater(answers[self.session.number]["seq"], answer["seq"])
            self.assertEqual(again.get("once", "k"), {"n": 2})
            # The client says that it has these answers, so the daemon need not know them any more.
            again.put("once", "other", 1)
            write = {**self.session.unanswered[self.session.number][1]}
            with self.assertRaises(Fault) as refused:
                again.ask("WriteAgain", {"earlier": {"boot": again.daemon.boot, "after": 0}, "write": write})
            self.assertEqual(refused.exception.name, "OutcomeUnknown")
            self.assertEqual(again.get("once", "k"), {"n": 2})

    def test_a_drop_that_is_sent_again_takes_nothing_that_came_after_it(self):
        self.session.put("dropped", "k", 1)
        drop = {"space": space("dropped"), "client": self.session.client, "number": 100, "settled": 100, "earlier": None}
        first = self.session.ask("DropOnce", drop)
        self.session.number = 100
        self.session.put("dropped", "later", 2)
        drop |= {"earlier": {"boot": self.session.daemon.boot, "after": 0}, "number": 102, "settled": 102}
        second = self.session.ask("DropOnce", drop)
        self.session.number = 102
        self.assertEqual(self.session.ask("DropOnce", drop), second)
        self.assertEqual((first.value["records"], second.value["records"]), (1, 1))

    def change(self, name, **fields):
        return self.session.write([space(self.namespace)], [op(name, key="k", **fields)])

    def test_a_merge_sets_fields_and_an_append_keeps_the_end_of_a_list(self):
        self.change("Merge", fields='{"a":1,"b":{"c":2}}')
        self.change("Merge", fields='{"b":null,"d":[]}')
        self.assertEqual(self.session.get(self.namespace, "k"), {"a": 1, "b": None, "d": []})
        self.change("Append", field="d", items="[1,2,3]", keep_last=None)
        self.change("Append", field="d", items="[4]", keep_last=2)
        self.assertEqual(self.session.get(self.namespace, "k")["d"], [3, 4])

    def test_an_increment_adds_integers_and_floats(self):
        for number in [Variant("Int", 2), Variant("Int", -5), Variant("Float", 0.5)]:
            self.change("Increment", field="n", by=number)
        self.assertEqual(self.session.get(self.namespace, "k"), {"n": -2.5})
        self.put_text("k", json.dumps({"n": (1 << 63) - 1, "text": "x"}))
        fields = self.refused("Overflow", self.change, "Increment", field="n", by=Variant("Int", 1))
        self.assertEqual(fields, {"operation": 0, "key": "k", "field": "n"})
        fields = self.refused("WrongType", self.change, "Increment", field="text", by=Variant("Int", 1))
        self.assertEqual((fields["operation"], fields["key"], fields["field"]), (0, "k", "text"))
        self.assertEqual(self.session.get(self.namespace, "k")["text"], "x")

    def test_a_stamped_put_keeps_the_time_of_creation(self):
        self.change("PutStamped", value='{"v":1}')
        first = self.session.get(self.namespace, "k")
        self.assertEqual((first["v"], first["_id"]), (1, "k"))
        self.assertLess(abs(first["create_time"] - time.time()), 600)
        self.change("PutStamped", value='{"v":2}')
        second = self.session.get(self.namespace, "k")
        self.assertEqual((second["v"], second["create_time"]), (2, first["create_time"]))
        self.assertGreaterEqual(second["update_time"], first["update_time"])

    # --- All of it at once.

    def get_all(self, values=True):
        return self.session.ask("GetAll", {"space": space(self.namespace), "values": values}).value

    def test_all_records_of_one_moment_come_in_parts(self):
        text = json.dumps("x" * 400_000)
        written = [self.put_text(key, text)["seq"] for key in "abcdefgh"]
        number = self.session.send("GetAll", {"space": space(self.namespace), "values": True})
        self.session.receive_frame()
        self.assertIn(number, self.session.parts)
        answer = self.session.wait(number).value
        self.assertEqual([(entry["key"], entry["seq"]) for entry in answer["entries"]], list(zip("abcdefgh", written)))
        self.assertEqual({entry["value"] for entry in answer["entries"]}, {text})
        self.assertGreaterEqual(answer["seq"], written[-1])
        self.assertEqual({entry["value"] for entry in self.get_all(values=False)["entries"]}, {None})

    def test_a_drop_takes_records_and_file(self):
        self.session.put(self.namespace, "k", 1)
        self.session.ask("Flush", {"space": space(self.namespace), "rewrite": False, "wait": True})
        path = pathlib.Path(STORE) / f"kv_store_{self.namespace}.json"
        self.assertTrue(path.exists())
        self.assertEqual(self.session.ask("Drop", {"space": space(self.namespace)}).value["records"], 1)
        self.assertFalse(path.exists())
        self.assertEqual(self.get_all()["entries"], [])

    def test_workspaces_are_listed_with_what_they_hold(self):
        where = space("n", self.namespace)
        self.session.write([where], [op("Put", key=key, value="1") for key in "abc"])
        listed = self.session.ask("Workspaces").value["list"]
        info = next(each for each in listed if each["workspace"] == self.namespace)
        self.assertEqual((info["namespaces"], info["loaded"], info["records"]), (1, 1, 3))

    # --- Files and status.

    def test_a_flush_brings_the_file_up_to_date(self):
        written = self.session.put(self.namespace, "k", {"v": "é"})
        self.assertGreaterEqual(self.session.ask("Commit").value["seq"], written["seq"])
        flush = {"space": space(self.namespace), "rewrite": False, "wait": True}
        flushed = self.session.ask("Flush", flush).value
        self.assertEqual(flushed["rewritten"], 1)
        self.assertGreaterEqual(flushed["seq"], written["seq"])
        with open(pathlib.Path(STORE) / f"kv_store_{self.namespace}.json", encoding="utf-8") as file:
            self.assertEqual(json.load(file), {"k": {"v": "é"}})
        self.assertEqual(self.session.ask("Flush", flush).value["rewritten"], 0)
        self.assertEqual(self.session.ask("Flush", flush | {"wait": False}), Variant("Done"))
        listed = self.session.ask("Namespaces").value["list"]
        info = next(each for each in listed if each["namespace"] == self.namespace)
        self.assertEqual((info["workspace"], info["records"], info["dirty"], info["closed"]), ("", 1, False, None))
        self.assertGreater(info["file_bytes"], 0)

    def test_a_status_is_a_json_object(self):
        status = json.loads(self.session.ask("Status").value["json"])
        self.assertIsInstance(status, dict)
        self.assertIn("version", status)

    # --- Sessions.

    def test_sessions_are_listed_and_can_be_ended(self):
        other = self.connect()
        other.ask("Ping")
        listed = self.session.ask("Sessions").value["list"]
        info = next(each for each in listed if each["client"] == other.client)
        self.assertEqual((info["pid"], info["uid"], info["version"]), (os.getpid(), os.getuid(), other.version))
        self.assertEqual(self.session.ask("EndSession", {"id": info["id"]}), Variant("Done"))
        self.refused("SessionEnded", other.receive_frame)
        fields = self.refused("NoSuchSession", self.session.ask, "EndSession", {"id": 1 << 60})
        self.assertEqual(fields, {"id": 1 << 60})

    # --- What is refused.

    def test_what_is_refused_says_why_and_the_session_goes_on(self):
        fields = self.refused("InvalidJson", self.put_text, "k", '{"a": }')
        self.assertEqual((fields["key"], fields["offset"]), ("k", 6))
        self.refused("InvalidNamespace", self.session.put, "../etc", "k", 1)
        self.refused("InvalidWorkspace", self.session.write, [space("n", "..")], [op("Clear")])
        fields = self.refused("TooLarge", self.session.put, self.namespace, "k" * 70_000, 1)
        self.assertEqual((fields["got"], fields["limit"]), (70_000, client.TABLES.limits["MAX_KEY_BYTES"]))
        self.refused("Malformed", self.session.write, [], [op("Clear", 3)])
        self.assertEqual(self.session.ask("Ping"), Variant("Done"))

    def test_a_verb_that_the_daemon_does_not_know_is_answered_unsupported(self):
        unknown = {"verb": 10_000, "body": b"\0" * 4 + (10_000).to_bytes(4, "little")}
        self.session.socket.sendall(client.frame(1_000, client.REQUEST, unknown["body"]))
        fields = self.refused("Unsupported", self.session.wait, 1_000)
        self.assertEqual(fields, {"what": "verb", "tag": unknown["verb"]})

    def test_a_body_that_cannot_be_read_is_refused_and_the_session_goes_on(self):
        self.session.socket.sendall(client.frame(1_000, client.REQUEST, b"\0\0"))
        self.refused("Malformed", self.session.wait, 1_000)
        self.assertEqual(self.session.ask("Ping"), Variant("Done"))

    def test_a_frame_that_is_none_ends_the_connection(self):
        for data in [client.HEADER.pack(8, 1, client.REQUEST), client.frame(1, 9), client.frame(0, client.REQUEST)]:
            session = self.connect()
            session.socket.sendall(data)
            self.refused("Malformed", session.receive_frame)
            with self.assertRaises(ConnectionError):
                session.receive_frame()

    # --- Waiting no longer.

    def hold_flush_lock(self):
        """Holds what a flush of the namespace needs, as a reader of its file does; returns how to let it go."""
        folder = pathlib.Path(STORE) / ".commonhold" / "flush" / "@"
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f"{self.namespace}.lock", "a", encoding="utf-8")
        fcntl.flock(lock, fcntl.LOCK_SH)
        self.addCleanup(lock.close)
        return lock.close

    def test_a_deadline_ends_a_flush_that_cannot_begin_while_others_pass(self):
        self.session.put(self.namespace, "k", 1)
        let_go = self.hold_flush_lock()
        flush = {"space": space(self.namespace), "rewrite": False, "wait": True}
        patient = self.session.send("Flush", flush)
        began = time.monotonic()
        hasty = self.session.send("Flush", flush, deadline_ms=100)
        self.assertEqual(self.session.ask("Ping"), Variant("Done"))
        with self.assertRaises(Fault) as raised:
            self.session.wait(hasty)
        self.assertIn(raised.exception.name, ["TimedOut", "FlushLockTimeout"])
        self.assertGreaterEqual(raised.exception.fields["waited_ms"], 100)
        self.assertLess(time.monotonic() - began, 10)
        let_go()
        self.assertEqual(self.session.wait(patient).value["rewritten"], 1)

    def test_a_request_that_is_cancelled_before_it_began_is_not_done(self):
        where = [space(self.namespace)]
        self.session.number += 1
        write = {"client": self.session.client, "settled": 1, "durability": None, "if_token": None, "spaces": where}
        frames = b""
        for number, key in [(1_001, "a"), (1_002, "b")]:
            verb = Variant("Write", write | {"number": number, "ops": [op("Put", key=key, value="1")]})
            frames += client.frame(number, client.REQUEST, client.encode("Request", {"deadline_ms": 0, "verb": verb}))
        # In one piece, so that the daemon has read the cancels before it begins anything.
        frames += client.frame(1_002, client.CANCEL) + client.frame(77, client.CANCEL)
        self.session.socket.sendall(frames)
        self.assertEqual(self.session.wait(1_001).name, "Written")
        self.assertIsNone(self.refused("Cancelled", self.session.wait, 1_002))
        self.assertEqual(self.get_many(["a", "b"]), ["1", None])


if __name__ == "__main__":
    unittest.main()
