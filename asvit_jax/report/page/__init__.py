"""A report as one HTML page that needs only a browser.

`contents` defines the parts of a page; `writing.write` turns it into a file. That file combines
`page.html`, `page.css` and the scripts of this directory with the data; it loads nothing, and its
policy forbids loading anything.
"""
