"""From a study's stored results to charts, tables and a report.

Reads ``sweeper.store`` and knows nothing of how a trial is run, so any study can be drawn again from its
folder alone. matplotlib is imported here and nowhere else, and only when a chart is drawn.
"""
