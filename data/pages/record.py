"""Record corpora of real page contents: samples of the anonymous memory of running programs.

Usage: ``python data/pages/record.py`` (Linux, as a user who may read /proc/PID/mem of its children).

Each program runs with an empty environment and a neutral working directory, on input that it makes itself, until it
prints a line; then it is stopped, and pages of its heap and anonymous mappings are drawn at random with a fixed seed.
Stacks, file mappings and the environment are left out.  Writes NAME.xz (pages one after the other) and manifest.json.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import signal
import subprocess
import tempfile
import zlib
from pathlib import Path

PAGE = 4096
SAMPLE = 640
FOLDER = Path(__file__).parent
SEED = 619

PYTHON = """
import json, random, re, collections
r = random.Random(1)
words = ["".join(r.choice("aeioubcdfglmnprst") for _ in range(r.randint(2, 9))) for _ in range(4000)]
text = " ".join(r.choice(words) for _ in range(400_000))
counts = collections.Counter(re.findall(r"[a-z]+", text))
index = {w: [m.start() for m in re.finditer(w, text[:200_000])] for w in words[:300]}
records = json.loads(json.dumps([{"id": i, "name": r.choice(words), "value": r.random()} for i in range(40_000)]))
matrix = [[r.random() for _ in range(300)] for _ in range(300)]
print("ready", flush=True); input()
"""
NODE = """
const words = []; let s = 1; const rnd = n => (s = (s * 48271) % 2147483647) % n;
const word = () => Array.from({length: 2 + rnd(8)}, () => "aeioubcdfglmnprst"[rnd(17)]).join("");
for (let i = 0; i < 4000; i++) words.push(word());
const objects = [];
for (let i = 0; i < 120000; i++) objects.push({id: i, name: words[rnd(4000)], tags: [rnd(9), rnd(99)]});
const map = new Map(objects.map(o => [o.name + o.id, o])); const text = JSON.stringify(objects.slice(0, 40000));
console.log("ready"); process.stdin.on("data", () => process.exit(map.size + text.length > 0 ? 0 : 1));
"""
SQL = """
PRAGMA cache_size=-65536;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 150000)
INSERT INTO item SELECT i, 'item ' || (i * 7919 % 100003), i * 0.37, 'ordered ' || (i % 365) || ' days ago' FROM n;
CREATE INDEX by_name ON item(name);
SELECT count(*), sum(price) FROM item WHERE name LIKE 'item 1%';
.print ready
"""
C_FUNCTION = """
static int step_%d(struct record *r, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        r[i].key = r[i].key * %d + i;
        sum += r[i].key %% %d;
        if (sum & 1) r[i].weight += sum;
    }
    return sum > %d ? sum - %d : sum;
}
"""


def c_source(functions: int) -> str:
    """A C file for the compiler to work on."""
    head = "struct record { int key; double weight; struct record *next; };\n"
    return head + "".join(C_FUNCTION % (i, i + 3, i + 7, i * 13, i) for i in range(functions))


def programs(folder: Path) -> dict[str, tuple[list[str], str | None, str]]:
    """Name -> (command, text for its standard input or None, how it was run)."""
    (folder / "input.c").write_text(c_source(9000))
    compiler = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=True)
    return {
        "python": (
            ["/usr/bin/python3", "-I", "-S", "-c", PYTHON],
            None,
            "word counts, an index, JSON records, a matrix",
        ),
        "node": (["node", "-e", NODE], None, "120,000 objects in an array and a map, a JSON text"),
        "sqlite": (["sqlite3", ":memory:"], SQL, "a table of 150,000 rows with an index, one query"),
        "compiler": (
            [compiler.stdout.strip(), "-quiet", "-O2", "input.c", "-o", "output.s"],
            None,
            "9,000 functions at -O2, stopped on the way",
        ),
    }


def anonymous_ranges(pid: int) -> list[tuple[int, int]]:
    """Heap and anonymous writable mappings; no stack, no file."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        name = fields[5] if len(fields) > 5 else ""
        if fields[1].startswith("rw") and name in ("", "[heap]"):
            start, end = (int(word, 16) for word in fields[0].split("-"))
            ranges.append((start, end))
    return ranges


def present_pages(pid: int) -> list[int]:
    """Addresses of these ranges' pages that exist in memory (bit 63 of /proc/PID/pagemap)."""
    pages = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        for start, end in anonymous_ranges(pid):
            pagemap.seek(start // PAGE * 8)
            entries = pagemap.read((end - start) // PAGE * 8)
            pages += [start + i // 8 * PAGE for i in range(0, len(entries), 8) if entries[i + 7] & 0x80]
    return pages


def sample(pid: int, seed: int) -> tuple[list[bytes], int]:
    """Pages drawn without replacement, and how many there were."""
    present = present_pages(pid)
    chosen = sorted(random.Random(seed).sample(present, min(SAMPLE, len(present))))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        pages = []
        for address in chosen:
            memory.seek(address)
            pages.append(memory.read(PAGE))
    return pages, len(present)


def run_and_sample(command: list[str], text: str | None, folder: Path) -> tuple[list[bytes], int]:
    """Start a program, wait until it is ready (or, for the compiler, well under way), stop it and sample it."""
    process = subprocess.Popen(
        command, cwd=folder, env={"LANG": "C"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    if text is not None:
        process.stdin.write(text.encode())
        process.stdin.flush()
    if "-quiet" in command:
        wait_for_growth(process.pid)
    else:
        while b"ready" not in process.stdout.readline():
            pass
    process.send_signal(signal.SIGSTOP)
    try:
        return sample(process.pid, SEED)
    finally:
        process.kill()
        process.wait()


def wait_for_growth(pid: int, kib: int = 60_000) -> None:
    """Wait until a process has grown to a size."""
    while int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) < kib:
        pass


def version(name: str, command: list[str]) -> str:
    """First line of what the program says of its version."""
    flags = {"compiler": ["gcc", "--version"], "sqlite": ["sqlite3", "--version"]}.get(name, [command[0], "--version"])
    return subprocess.run(flags, capture_output=True, text=True, check=True).stdout.splitlines()[0].split(" 20")[0]


def statistics(pages: list[bytes]) -> dict[str, float | int]:
    """Zero and same-filled pages, and mean compressed bytes of the others by codec."""
    from vswap_ref.machine import get_codec

    rest = [page for page in pages if page != bytes(PAGE)]
    figures: dict[str, float | int] = {
        "zero": len(pages) - len(rest),
        "same_filled": sum(page == page[:8] * (PAGE // 8) for page in rest),
    }
    for codec in ("lz4", "zstd", "deflate"):
        compress = get_codec(codec).compress
        figures[f"mean_bytes_{codec}"] = round(sum(min(PAGE, len(compress(page))) for page in rest) / len(rest), 1)
    return figures


def main() -> None:
    """Record all corpora."""
    manifest = {}
    with tempfile.TemporaryDirectory(prefix="run") as name:
        folder = Path(name)
        for key, (command, text, job) in programs(folder).items():
            pages, present = run_and_sample(command, text, folder)
            packed = lzma.compress(b"".join(pages), preset=9 | lzma.PRESET_EXTREME)
            (FOLDER / f"{key}.xz").write_bytes(packed)
            manifest[key] = {
                "program": version(key, command),
                "job": job,
                "pages": len(pages),
                "pages_in_memory": present,
                "crc32": zlib.crc32(b"".join(pages)),
                **statistics(pages),
            }
            print(key, len(packed), manifest[key])
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
