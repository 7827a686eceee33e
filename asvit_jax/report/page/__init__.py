"""One HTML page that needs nothing but a browser: what it holds, and how it is written.

`contents` says what a page can hold, `writing.write` makes one file of it. The page itself is
`page.html`, `page.css` and the scripts of this directory, put together with the data by `write`; it
loads nothing, and forbids itself to.
"""
