"""Every stage of the series as a package, such as ``vswap_ref._stages.s13.mm.zswap``.

In a wheel they stand beside this file; in a checkout, in ``_build/stages``.
"""

from vswap_ref.series.stages import stage_files

__path__ = [str(stage_files()[0])]
