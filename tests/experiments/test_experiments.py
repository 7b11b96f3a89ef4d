"""What the experiments of the book teach."""

from __future__ import annotations

from vswap_ref.lab.experiments.cache import life_of_a_slot, refaults
from vswap_ref.lab.experiments.cgroups import squeeze
from vswap_ref.lab.experiments.cgroups import who_pays as cgroup_pays
from vswap_ref.lab.experiments.clusters import fragment, scatter, side_by_side, take_back
from vswap_ref.lab.experiments.costs import device_cost, spread
from vswap_ref.lab.experiments.guesses import guess, windows
from vswap_ref.lab.experiments.large_folios import fragmented, touch
from vswap_ref.lab.experiments.ledger import metadata
from vswap_ref.lab.experiments.memory import fork_and_write
from vswap_ref.lab.experiments.reclaim import readahead, rewrites
from vswap_ref.lab.experiments.shmem import slot_order, who_pays
from vswap_ref.lab.experiments.slots import cluster_life, count_users
from vswap_ref.lab.experiments.swapoff import hibernate, walk
from vswap_ref.lab.experiments.welcome import first_steps
from vswap_ref.lab.experiments.zswap import burnt_slots, pool_limit


def test_every_page_burns_a_slot() -> None:
    """Zero, compressed or not: 512 pages, 512 slots, nothing written."""
    for content in ("mixed", "zero", "random"):
        record = burnt_slots(content)
        assert (record.slots, record.written) == (512, 0)
        assert record.zswapped + record.zero == 512
    assert burnt_slots("random").pool_bytes == 512 * 4096
    assert burnt_slots("python", "zstd").pool_bytes < burnt_slots("python", "lz4").pool_bytes < 512 * 2048


def test_the_device_is_reserved_not_written() -> None:
    """The first experiment: slots follow the pages pushed out, writes only without zswap."""
    assert (first_steps("8M", "lz4", 300).slots, first_steps("8M", "lz4", 300).written) == (300, 0)
    assert first_steps("8M", "off", 300).written == 225


def test_a_full_pool_stays_closed_until_the_threshold() -> None:
    """A low threshold opens the pool again, a high one does not in this run."""
    assert [row["full?"] for row in pool_limit(90).rows][-1] == "yes"
    low = pool_limit(50).rows
    assert low[-2]["pool pages"] <= 26
    assert low[-1]["full?"] == "no"
    assert low[-1]["pool pages"] > low[-2]["pool pages"]


def test_the_byte_follows_the_life_of_the_slot() -> None:
    """The sequence of swap-map bytes and words of a page that two processes share."""
    rows = [(row["byte"], row["word"]) for row in life_of_a_slot(2).rows]
    assert rows == [
        ("0x00", "null"),
        ("0x41", "folio"),
        ("0x42", "folio"),
        ("0x02", "shadow"),
        ("0x41", "folio"),
        ("0x40", "folio"),
        ("0x40", "folio"),
        ("0x00", "null"),
    ]


def test_a_loop_that_fits_never_refaults() -> None:
    """One page of memory more or less decides everything."""
    assert refaults(101).major_faults == 0
    assert refaults(99).activated > refaults(99).refaults // 4


def test_counting_carries_at_63() -> None:
    """...0x3d, 0x3e, then the digit 0 with the continuation flag."""
    rows = {row["users"]: (row["byte"], row["continuation"]) for row in count_users(130, 1).rows}
    assert (rows[61], rows[62], rows[63]) == (("0x3d", "[]"), ("0x3e", "[]"), ("0x80", "[1]"))
    assert rows[126] == ("0x80", "[2]")


def test_freeing_every_third_slot_frees_no_cluster() -> None:
    """Fragmentation: new pages go where something was freed before a fresh cluster is opened."""
    assert cluster_life("ssd", 3).lists() == {"free": 1, "nonfull": 3}
    again = cluster_life("ssd", 3, 300)
    assert again.lists()["free"] == 1
    assert sum(again.used()) == sum(cluster_life("ssd", 3).used()) + 300


def test_fork_shares_and_writes_copy() -> None:
    """One copy for each page that a child writes."""
    for children, percent in ((1, 0), (3, 25), (7, 100)):
        assert fork_and_write(children, percent).copies == children * 128 * percent // 100


def test_readahead_by_device_and_pattern() -> None:
    """Seven of eight pages arrive early in sequence; at random the window collapses; zram reads nothing ahead."""
    for device in ("disk", "ssd"):
        record = readahead(device, "sequential")
        assert record.major_faults < 1024 // 3
        assert record.hits + record.major_faults == 1024
    assert readahead("disk", "random").read_ahead < 1024 * 0.015
    assert readahead("zram").read_ahead == 0
    assert readahead("ssd", page_cluster=0).major_faults == 1024


def test_who_keeps_a_clean_copy() -> None:
    """A slot that survives saves the write; an exclusive load and the bypass do not."""
    assert rewrites("ssd", "off", 25).written == [128] * 4
    assert rewrites("ssd", "lz4", 25).stored == [512] * 4
    assert rewrites("zram", "off", 0).written == [511] * 4  # page 0 is all zero


def test_bytes_per_slot_are_the_letters() -> None:
    """3 bytes and a bit for each slot; 8 more for a used one, 8 more if it is in zswap."""
    assert metadata(0).bytes_per_slot == 3.125
    full = metadata(100, "lz4")
    assert full.ledger.letter == 3.125 * full.slots + 16 * full.used
    disk = metadata(100, "off")
    assert disk.ledger.letter == 3.125 * disk.slots + 8 * disk.used


def test_free_slots_are_not_room_for_a_folio() -> None:
    """Aligned runs in clusters of single pages are of no use; a cluster has to be free."""
    runs = fragment("16 of every 32")
    assert (runs.free, runs.runs(4), runs.room(4), runs.room(0)) == (1023, 63, 0, 1023)
    half = fragment("the first half")
    assert (half.runs(4), half.room(4), half.room(9)) == (63, 32, 1)
    assert fragment("random half").runs(3) <= 2


def test_each_cpu_fills_a_cluster_of_its_own() -> None:
    """On a drive that does not rotate; on a disk all CPUs go on at one place."""
    assert side_by_side("ssd", 4).used == [76, 75, 75, 75, 0, 0, 0, 0]
    assert side_by_side("disk", 4).used == side_by_side("ssd", 1).used == [301, 0, 0, 0, 0, 0, 0, 0]


def test_kept_slots_make_room_when_swap_is_short() -> None:
    """Every slot that only the cache holds can be had again."""
    assert [take_back(n).placed for n in (0, 50, 100)] == [523, 573, 600]
    assert take_back(100).taken_back == 100


def test_a_scattered_file_costs_seeks() -> None:
    """More pieces, more extents, more time."""
    one, many = scatter(1), scatter(64)
    assert (one.extents, many.extents) == (1, 64)
    assert many.read_ms > 3 * one.read_ms


def test_swapoff_pays_for_what_is_mapped() -> None:
    """The walk is as long as the page tables, whatever is on the device."""
    assert [walk(4, pages).ptes for pages in (2, 64, 1024)] == [2048] * 3
    assert walk(8, 2).ptes == 4096


def test_an_image_takes_the_holes_and_stays_intact() -> None:
    """A fragmented device gives many runs; reclaim finds none of these slots."""
    tidy, fragmented = hibernate(300, 0), hibernate(300, 3)
    assert tidy.intact
    assert fragmented.intact
    assert tidy.runs < 5 < 50 < fragmented.runs
    assert fragmented.clusters.counts()["image"] == 300


def test_a_large_folio_saves_faults_or_wastes_memory() -> None:
    """Dense use: one fault for sixteen pages.  One page a block: as many faults, sixteen times the memory."""
    assert (touch("64K", 1).faults, touch("64K", 1).resident) == (64, 1024)
    assert (touch("64K", 16).faults, touch("64K", 16).resident) == (64, 1024)
    assert (touch("4K", 16).faults, touch("4K", 16).resident) == (64, 64)


def test_only_empty_clusters_take_large_folios() -> None:
    """Free and aligned is not enough: a cluster that serves single pages keeps its order until it is empty."""
    for freed in ("slot", "64K block"):
        record = fragmented("64K", freed)
        assert (record.free_slots, record.whole, record.split) == (1024, 0, 64)
    assert (fragmented("64K", "cluster").whole, fragmented("2M", "cluster").whole) == (64, 2)


def test_the_guest_waits_and_the_owner_pays() -> None:
    """The owner's limit pushes out what only the guest uses; without a limit in the way nothing is swapped."""
    owner, guest = who_pays(256, 64).rows
    assert (guest["memory"], guest["swap"], guest["times at its limit"], owner["major faults"]) == (0, 0, 0, 0)
    assert guest["major faults"] > 0 < owner["times at its limit"]
    assert 0 < owner["memory"] <= 64
    owner, guest = who_pays(128, 128).rows
    assert (owner["memory"], guest["memory"], owner["swap"], guest["major faults"]) == (128, 128, 0, 0)


def test_shared_memory_reads_ahead_by_slot() -> None:
    """The order of the slots decides for shared memory, and for anonymous memory only on a rotating disk."""
    for memory, device, suffers in (("shared", "ssd", True), ("anonymous", "ssd", False), ("anonymous", "disk", True)):
        assert slot_order(memory, 1, device).major_faults < 100
        assert (slot_order(memory, 2, device).major_faults == 512) == suffers
    assert slot_order("anonymous").written == 0
    assert slot_order("shared").written > 400


def test_costs_scale_with_the_device() -> None:
    """Sixteen times the slots: sixteen times the letter's bytes; unused slots cost as much as used ones at swapon."""
    small, large = (device_cost(size, 100, "swapfile").ledger for size in ("4M", "64M"))
    assert large.paid()["at swapon"][0] == 16 * small.paid()["at swapon"][0]
    assert large["swap table"][1] == 16 * small["swap table"][1]
    assert device_cost("64M", 0, "swapfile").ledger.paid()["at swapon"] == large.paid()["at swapon"]


def test_thin_use_keeps_whole_tables() -> None:
    """Freed at random, no table goes; freed in order they go, but for the header's."""
    scattered, ordered = spread(90, "random"), spread(90, "oldest first")
    assert scattered.entries == ordered.entries == 205
    assert (scattered.tables, ordered.tables) == (4, 2)
    assert scattered.bytes_per_entry > 10 * scattered.letter_per_entry
    assert scattered.letter_per_entry == ordered.letter_per_entry == 16
    assert spread(0, zswap=False).bytes_per_entry < 8.01


def test_a_compressed_page_is_paid_twice() -> None:
    """Version 2 charges slot and compressed bytes; version 1 lets nobody pay for the pool."""
    v2 = cgroup_pays("random", "zswap", "v2").rows[-1]
    assert (v2["memory KiB"], v2["swap KiB"]) == (1024, 1024)
    v1 = cgroup_pays("random", "zswap", "v1").rows[-1]
    assert (v1["memory KiB"], v1["memory + swap KiB"]) == (0, 1024)
    assert 0 < cgroup_pays("python", "zswap").rows[-1]["memory KiB"] < 512
    assert cgroup_pays("python", "device").rows[-1]["memory KiB"] == 0


def test_high_slows_down_where_max_ends() -> None:
    """With swap both hold the limit; without it one costs time, the other the program."""
    for limit in ("high", "max"):
        record = squeeze(limit, "4M")
        assert record.written == 256
        assert record.peak <= 129
        assert record.milliseconds < 100
    assert (squeeze("max", "0").written, squeeze("max", "0").events["oom"]) == (128, 1)
    slow = squeeze("high", "0")
    assert (slow.written, slow.peak) == (256, 256)
    assert slow.milliseconds > 10_000


def test_windows_follow_hits() -> None:
    """Forward they double up to the limit; with page_cluster 0 there are none; a stride of two keeps four."""
    assert [row["window"] for row in windows("forward", 5).rows] == [8, 8, 16, 32, 32, 32, 32]
    assert len(windows("forward", 0).rows) == 128
    assert {row["window"] for row in windows("every second", 5).rows[1:]} == {4}
    assert 1 in [row["window"] for row in windows("random", 3).rows]


def test_slots_follow_time_and_addresses_follow_the_program() -> None:
    """Strewn addresses end readahead by address and leave readahead by slot alone."""
    assert guess("compile", "strewn", "ssd").read_ahead == 0
    assert guess("compile", "recorded", "ssd").read_ahead > 50
    tight = [guess("sqlite", "recorded", "ssd", page_cluster, memory_percent=25) for page_cluster in (0, 3, 5)]
    assert tight[0].read < tight[1].read < tight[2].read
    assert tight[0].milliseconds < tight[1].milliseconds < tight[2].milliseconds
    disk = [guess("sort", layout, "disk") for layout in ("recorded", "strewn")]
    assert all(record.hits > 0.9 * record.read_ahead > 0 for record in disk)
    assert disk[0].major_faults < guess("sort", "recorded", "disk", 0).major_faults / 3
