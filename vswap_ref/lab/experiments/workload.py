"""The experiments of the chapter on one workload and two kernels: counters beside those of a real kernel."""

from __future__ import annotations

from dataclasses import dataclass

from vswap_ref.display import Figure, Table
from vswap_ref.lab.real_kernel import JUDGED, Workload, compare_workload, run_workload


def beside(workload: Workload, runs: list[dict[str, int]]) -> Table:
    """Run a recorded workload: one row a counter that either kernel moved, model beside kernel."""
    rows = [
        {
            "counter": verdict.counter,
            "model": verdict.model,
            "real kernel": round(verdict.kernel),
            "deviation": Figure(f"{verdict.model / verdict.kernel - 1:+.1%}" if verdict.kernel > 100 else ""),
            "verdict": "not judged" if verdict.allowed is None else ("agrees" if verdict.ok else "out of tolerance"),
        }
        for verdict in compare_workload(workload, runs, stage=0)
        if verdict.model or verdict.kernel
    ]
    return Table(str(workload), rows)


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """What a workload made the model count."""

    workload: Workload
    counters: dict[str, int]

    @property
    def zero_share(self) -> float:
        """Share of zero pages among all that came back."""
        return self.counters["swpin_zero"] / max(1, self.counters["workingset_refault_anon"])

    def __repr__(self) -> str:
        return f"{self.workload}: {self.zero_share:.0%} of the pages that came back were zero"

    def _repr_html_(self) -> str:
        rows = [{"counter": name, "model": self.counters[name]} for name in JUDGED if self.counters[name]]
        return f"<p>{self!r}</p>{Table(str(self.workload), rows)._repr_html_()}"


def shrunken(device: str = "disk", pattern: str = "rand", zswap: int = 0, memcg: str = "v1") -> WorkloadRecord:
    """The workload with writes on zero and random pages, at a quarter of its size."""
    workload = Workload(device, 8, 24, 2, pattern, 1, "zr", 0, 3, zswap)
    return WorkloadRecord(workload, run_workload(workload, stage=0, memcg=memcg))
