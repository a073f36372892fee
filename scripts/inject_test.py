"""scripts/inject.py finds each failed call in what strace writes, also where it writes one in two lines."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
import inject  # noqa: E402

WRITTEN = """\
70  fdatasync(10</s/.commonhold/journal/00000002.log>) = 0
70  fdatasync(10</s/.commonhold/journal/00000002.log> <unfinished ...>
69  fdatasync(21</s/kv_store_b.json.tmp> <unfinished ...>
70  <... fdatasync resumed>)          = -1 EDQUOT (Disk quota exceeded) (INJECTED)
69  <... fdatasync resumed>)          = 0
69  unlink("/s/a") = -1 ENOENT (No such file or directory)
71  rename("/s/a", "/s/b") = -1 EIO (Input/output error) (INJECTED)
70  +++ exited with 0 +++
"""


class Injected(unittest.TestCase):
    def test_calls_that_strace_writes_in_two_lines_are_found_too(self):
        with tempfile.TemporaryDirectory() as directory:
            output = pathlib.Path(directory) / "strace"
            output.write_text(WRITTEN, encoding="utf-8")
            self.assertEqual(
                inject.injected(output),
                [
                    ("fdatasync", "10</s/.commonhold/journal/00000002.log>", "EDQUOT"),
                    ("rename", '"/s/a", "/s/b"', "EIO"),
                ],
            )


if __name__ == "__main__":
    unittest.main()
