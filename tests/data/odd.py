#!/usr/bin/env python3
"""Writes a namespace file that holds everything Python's own json.dump can write, as LightRAG's call of it does.

    odd.py FILE      the file, with json.dump(..., indent=2, ensure_ascii=False) and no newline at its end

Commonhold must load it and write the very same bytes again in the format `pretty`. Nothing here is random: the same
Python writes the same file.
"""

import json
import math
import sys

DEPTH = 900


def nested(depth, inner, wrap):
    for level in range(depth):
        inner = wrap(inner, level)
    return inner


def odd():
    controls = "".join(map(chr, range(0x20)))
    beyond = "\x7f\x80\x9f\xa0\u2028\u2029\ufeff\ufffd\ufffe\uffff\ud7ff\ue000\U0001f600\U0010ffff"
    floats = [0.0, -0.0, 1.0, -1.5, 0.1, 1e15, 1e16, 1e22, 1.7976931348623157e308, 1e-4, 1e-5, 5e-324, -2.5e-10,
              math.pi, 1 / 3, 123456789.123456789, math.nan, math.inf, -math.inf]
    integers = [0, -1, 7, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**100, -(10**400)]
    return {
        "": "the empty key",
        " ": " the key of one space ",
        "controls": controls,
        "each control": [chr(c) for c in range(0x20)],
        "quotes and slashes": '"\\/" \\" \\\\ \\u0041 // \\n',
        "beyond": beyond,
        "languages": {"中文": "春眠不觉晓，处处闻啼鸟", "Ελληνικά": "λόγος", "עברית": "בראשית", "e\u0301": "é"},
        'key "with" \\ and ' + controls: [],
        "\U0001f468\u200d\U0001f469\u200d\U0001f467": "\U0001f9ea\U00020000",
        "\ufffe": "\uffff",
        "floats": floats,
        "integers": integers,
        "empty object": {},
        "empty array": [],
        "empty string": "",
        "nested empty": [[], {}, [[]], [{}], {"": {}}, {"a": [], "b": {}}, [[[], []], {"c": [{}, []]}]],
        "true": True,
        "false": False,
        "null": None,
        "NaN": math.nan,
        "Infinity": math.inf,
        "-Infinity": -math.inf,
        "scalar integer": 42,
        "scalar float": -0.0,
        "looks like JSON": '{"a": [1, 2, {"b": "}]"}], "c": "\\""}',
        "deep array": nested(DEPTH, "the bottom", lambda inner, _: [inner]),
        "deep object": nested(DEPTH, [], lambda inner, level: {f"level {level}": inner}),
        "deep and wide": nested(DEPTH // 2, {}, lambda inner, level: [level, {"a": level, "b": inner, "c": []}, "after"]),
        "many keys": {f"key {n}": {"n": n, "square": n * n, "root": math.sqrt(n)} for n in range(2000)},
        "long string": "x" * 100_000 + '"' + "\n" * 1000 + "é" * 50_000,
        "every string length": ["y" * n + "\n" + "z" * (n // 2) for n in range(200)],
        "long key " + "k" * 70_000: True,
    }


def main():
    # The encoder and the decoder recurse: once or twice a level.
    sys.setrecursionlimit(20 * DEPTH)
    with open(sys.argv[1], "w", encoding="utf-8", newline="\n") as file:
        json.dump(odd(), file, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
