"""The paper's statements as tests on the records: :func:`claims` judges each by paired comparisons over seeds."""

from analysis.claims.claim import Claim, Comparison
from analysis.claims.evidence import Evidence
from analysis.claims.paper import CLAIMS
from analysis.claims.verdicts import Criteria, claims, judge

__all__ = ["CLAIMS", "Claim", "Comparison", "Criteria", "Evidence", "claims", "judge"]
