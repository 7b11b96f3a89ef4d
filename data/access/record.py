"""Record page-level access traces of real programs with valgrind's lackey tool.

Usage: ``python data/access/record.py`` (needs valgrind, gcc, sqlite3 and GNU sort).

Every load and store of data is taken, instruction fetches are not.  Addresses become page numbers, numbered densely in
order of first access.  Accesses that hit one of the 32 most recently used pages are left out, as a TLB would absorb
them; the first store to a page after its last record is kept.  Writes NAME.npz and manifest.json.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
RECENT = 32
LONGEST = 300_000
SQL = """
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 100003), i * 0.37 FROM n;
CREATE INDEX by_name ON item(name);
SELECT count(*), sum(price) FROM item WHERE name LIKE 'item 1%';
SELECT a.id, b.id FROM item a JOIN item b ON a.name = b.name WHERE a.id % 97 = 0 ORDER BY a.price LIMIT 5;
UPDATE item SET price = price * 1.1 WHERE id % 10 = 3;
SELECT name, count(*) FROM item GROUP BY substr(name, 1, 6) LIMIT 3;
"""


def c_source(functions: int) -> str:
    """A C file for the compiler to work on."""
    body = "static int step_%d(int *r, int n) { int s = 0; for (int i = 0; i < n; i++) s += r[i] %% %d; return s; }\n"
    return (
        "".join(body % (i, i + 7) for i in range(functions)) + "int main(void) { int r[9] = {0}; return step_1(r, 9); }"
    )


def programs(folder: Path) -> dict[str, tuple[list[str], str, str]]:
    """Name -> (command, text for its standard input, what it does)."""
    (folder / "input.c").write_text(c_source(60))
    compiler = subprocess.run(
        ["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = "\n".join(f"{i * 7919 % 100_003:06d} some text to carry along with the key" for i in range(60_000))
    return {
        "compile": ([compiler, "-quiet", "-O1", "input.c", "-o", "output.s"], "", "cc1 compiles 60 functions at -O1"),
        "sqlite": (["sqlite3", ":memory:"], SQL, "a table of 20,000 rows, an index, scans, a join, an update"),
        "sort": (["sort", "--parallel=1"], lines, "GNU sort of 60,000 lines"),
    }


def data_accesses(command: list[str], text: str, folder: Path) -> Iterable[tuple[int, bool]]:
    """(page address, store?) of every data access of a program under lackey."""
    log = folder / "log"
    subprocess.run(["mkfifo", str(log)], check=True)
    (folder / "input").write_text(text)
    with open(folder / "input") as standard_input:
        process = subprocess.Popen(
            ["valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={log}", *command],
            cwd=folder,
            stdin=standard_input,
            stdout=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        )
    with open(log, errors="replace") as lines:
        for line in lines:
            if line[:2] in (" L", " S", " M"):
                yield int(line[3:].partition(",")[0], 16) >> 12, line[1] != "L"
    process.wait()
    log.unlink()


def compact(accesses: Iterable[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray, int]:
    """(pages, stores, accesses seen): dense page numbers, hits in the recent pages left out."""
    numbers: dict[int, int] = {}
    recent: OrderedDict[int, bool] = OrderedDict()
    pages: list[int] = []
    stores: list[bool] = []
    seen = 0
    for address, store in accesses:
        seen += 1
        if len(pages) == LONGEST:
            continue
        if address in recent and (recent[address] or not store):
            recent.move_to_end(address)
            continue
        pages.append(numbers.setdefault(address, len(numbers)))
        stores.append(store)
        recent[address] = store
        recent.move_to_end(address)
        if len(recent) > RECENT:
            recent.popitem(last=False)
    return np.array(pages, np.uint32), np.array(stores, bool), seen


def main() -> None:
    """Record all traces."""
    manifest = {}
    for key in ("compile", "sqlite", "sort"):
        with tempfile.TemporaryDirectory(prefix="run") as name:
            folder = Path(name)
            command, text, job = programs(folder)[key]
            pages, stores, seen = compact(data_accesses(command, text, folder))
        np.savez_compressed(FOLDER / f"{key}.npz", page=pages, write=stores, name=np.array(key))
        manifest[key] = {
            "job": job,
            "accesses_recorded": seen,
            "events": len(pages),
            "pages": int(pages.max()) + 1,
            "stores": int(stores.sum()),
            "complete": len(pages) < LONGEST,
        }
        print(key, (FOLDER / f"{key}.npz").stat().st_size, manifest[key])
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
