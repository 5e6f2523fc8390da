#!/usr/bin/env python3
"""The first session of README.md against a fresh server: readme.py README ADDRESS.

Runs the first `python` block, and compares what it prints with the `text` block after it.
"""

import contextlib
import io
import re
import sys


def main(readme, address):
    text = open(readme, encoding="utf-8").read()
    (program, expected) = re.search(
        r"```python\n(.*?)```.*?```text\n(.*?)```", text, re.DOTALL
    ).groups()
    assert '"3000"' in program
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program.replace('"3000"', repr(address)), readme, "exec"), {})
    if printed.getvalue() != expected:
        sys.exit(f"README.md says:\n{expected}\nthe server says:\n{printed.getvalue()}")
    print(printed.getvalue(), end="")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
