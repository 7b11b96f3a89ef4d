"""What people need who write the notebooks: commands, executed notebooks, the history of symbols.

It stands above the engine (``vswap_ref.series``), which knows nothing of it.  ``history`` asks what stages did to
symbols, ``execute`` produces the paired ``.ipynb`` with outputs, deterministically and only where something has
changed, ``commands`` are those of ``vswap-ref``.
"""
