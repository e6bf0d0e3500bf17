"""Says at the end of a run what failed: `python3 tests/failures.py LOG`.

The output of a run has thousands of lines, and a failure stands somewhere in it. This prints the names of the tests that failed,
each with the panics of its thread, after the errors of cargo and of the script. Panics of other threads stand before that, for a
test may fail in one.
"""

import re
import sys

PANIC = re.compile(r"^thread '([^']*)' (?:\(\d+\) )?panicked at (\S+?):?$")
FAILED = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. FAILED$")
# What ends the text of a panic.
END = re.compile(r"^(stack backtrace:|note: |test |running \d|failures:|successes:|thread '|---- |\s+\d+: )")
LINES, OTHERS = 12, 10


def read(path):
    names, panics, errors = [], [], []
    lines = open(path, encoding="utf-8", errors="replace").read().splitlines()
    listed = False
    for at, line in enumerate(lines):
        # Without `--nocapture` and with it, libtest lists the names under `failures:` at the end.
        if line == "failures:":
            listed = True
        elif listed and re.match(r"^    \S+$", line):
            names.append(line.strip())
        elif listed and line.startswith("test result:"):
            listed = False
        if found := FAILED.match(line):
            names.append(found[1])
        if found := PANIC.match(line):
            text = []
            for more in lines[at + 1 : at + 1 + LINES]:
                if END.match(more):
                    break
                text.append(more)
            panics.append((found[1], found[2], text))
        # cargo names a test binary that failed in such a line, and rustc what it could not build.
        if re.match(r"^(error(\[E\d+\])?:|error: )", line):
            place = [more for more in lines[at + 1 : at + 3] if more.lstrip().startswith("-->")]
            errors.append([line] + place)
    return list(dict.fromkeys(names)), panics, errors


def main():
    names, panics, errors = read(sys.argv[1])
    others = [p for p in panics if p[0] not in names]
    if names and others:
        print(f"panics of other threads, some of them meant ({len(others)}):")
        for thread, place, text in others[-OTHERS:]:
            print(f"  {thread} at {place}: {' '.join(text[:2])[:300]}")
    print(f"== what failed ({len(names)} tests)")
    for error in errors[:OTHERS]:
        print("\n".join(error))
    for name in names:
        print(f"FAILED {name}")
        for thread, place, text in panics:
            if thread == name:
                print(f"  at {place}")
                print("\n".join("    " + t for t in text))

main()
