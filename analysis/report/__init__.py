"""A study as one self-contained HTML page, and the literature it compares as BibTeX.

The charts are plain SVG and the script is short and hand-written: everything is drawn before the page is opened, reads
without a script, prints, takes the page's colours in light and dark, and stays under a megabyte or two, where a bundled
Plotly alone is four. A new section is one function in a module of its own and one line in :mod:`analysis.report.page`.
"""

from analysis.report.bibtex import bibtex
from analysis.report.document import latex_document
from analysis.report.markup import MLFLOW_URL, RunLinks
from analysis.report.page import report_html, write_report

__all__ = ["MLFLOW_URL", "RunLinks", "bibtex", "latex_document", "report_html", "write_report"]
