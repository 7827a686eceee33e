"""Measures the machine that it runs on: correctness of every execution and backend, and speed.

`settings` says what is measured, `parts` in which order, `running` runs the parts within their
time, `page` shows the results. Each kind of part is a module: `correctness`, `throughput`,
`training` and `rival`.
"""
