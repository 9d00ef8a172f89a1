"""Searches read from the records: tables, importance of axes, regret, figures, the report and the best configs."""

from analysis.search.overview import contenders_table, importance_table, searches_table, trials_table
from analysis.search.page import comparisons, verdict, write_search_report
from analysis.search.records import SearchRecords, SearchRun, recorded_searches
from analysis.search.regret import Regret, regret
from analysis.search.top import top_configs
from analysis.search.ways import ways_to_search

__all__ = [
    "Regret",
    "SearchRecords",
    "SearchRun",
    "comparisons",
    "contenders_table",
    "importance_table",
    "recorded_searches",
    "regret",
    "searches_table",
    "top_configs",
    "trials_table",
    "verdict",
    "ways_to_search",
    "write_search_report",
]
