#!/usr/bin/env python3
"""Opens timelines of the simulator in headless Chromium and has each check itself (`?selftest`).

usage: check.py DIRECTORY    pages and browser profiles go there; vopr and chromium have to be installed

Fails unless every page loads without an error, has a lane for each replica, standby and client of its run, and
shows something else when a reader zooms, pans, clicks or looks for a text.
"""

import html
import json
import pathlib
import re
import subprocess
import sys
import tempfile

# A run that passes, one that fails, one of a script, one of a single replica, and one of which only the newest
# messages are kept; each with its exit status.
RUNS = {
    "passes": (["--cluster", "--seed", "0x65"], 0),
    "fails": (["--cluster", "--seed", "1", "--bug", "NackLost"], 1),
    "scenario": (["--scenario", "V13", "--seed", "3"], 0),
    "single": (["--seed", "5", "--requests", "100"], 0),
    "newest": (["--cluster", "--seed", "0x65", "--timeline-events", "2000"], 0),
}


def run(arguments, status):
    """Runs the simulator; gives what it says of the run."""
    command = ["cargo", "vopr", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, (command, done.returncode, done.stderr[-2000:])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines][-1] == "summary"
    return lines[0]


def open_page(page, directory):
    """Gives what the page found of itself."""
    with tempfile.TemporaryDirectory(dir=directory) as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={profile}", "--window-size=1500,900", "--dump-dom",
            f"{page.resolve().as_uri()}?selftest",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="selftest">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"{page}: no self-test in the page; chromium says: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found.group(1)))


def check(name, arguments, status, directory):
    page = directory / f"{name}.html"
    about = run([*arguments, "--timeline", str(page)], status)
    text = page.read_text()
    assert not re.search(r'(src|href)=|url\(|@import|fetch\(', text.split("const DATA")[0]), "needs other files"
    found = open_page(page, directory)
    assert found["errors"] == [], found["errors"]
    wrong = {what: how for what, how in found["checks"].items() if how != "ok"}
    assert not wrong, f"{name}: {wrong}"
    # One client more than those at work reads back.
    lanes = about["replicas"] + about["standbys"] + about["clients"] + 1
    assert len(found["lanes"]) == lanes, found["lanes"]
    assert (found["dropped"] > 0) == (name == "newest"), found["dropped"]
    print(f"{name}: {len(found['lanes'])} lanes, {found['messages']} messages, {found['points']} marks, "
          f"{len(found['checks'])} checks, drawn in {found['milliseconds']:.0f} ms")
    return about


def main():
    directory = pathlib.Path(sys.argv[1])
    about = {name: check(name, *how, directory) for name, how in RUNS.items()}
    # Keeping what happens changes nothing in a run.
    arguments, status = RUNS["passes"]
    assert run(arguments, status)["hash"] == about["passes"]["hash"] == about["newest"]["hash"]
    print(f"{len(RUNS)} timelines are well")


main()
