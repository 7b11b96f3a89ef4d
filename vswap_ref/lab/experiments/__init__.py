"""The experiments of the book: pure functions of their parameters that boot a kernel, run, and return a record.

One module a chapter.  A record keeps the figures as plain rows and shows itself in light and dark.
"""
