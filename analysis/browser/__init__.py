"""One page on a study, for a browser: ``report.html``, which needs neither a network nor a server.

``contents`` reads from a study what the page shows, as plain data; ``document`` puts that data, the styles
and the scripts of this folder into one file. The browser draws the tables and the charts from the data, so
that they can be sorted, filtered and pointed at. Every text of a study enters the page as text.
"""
