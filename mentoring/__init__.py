"""The hub: items come in, operators are asked, answers go out as a data set.

``python -m mentoring serve`` is one process with a folder.  The core (`store`, `agenda`,
`answers`, `export`) is plain functions and small classes over a database and files; `api` is the
HTTP around it, `page` what an operator sees.
"""
