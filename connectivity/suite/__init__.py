"""The tests, in the order in which they run.

In:        a ClusterView.
Out:       TESTS; a test's actions with what is expected of each.
Elsewhere: scenarios.py says who asks whom; ../policies/ holds the policies.

Names are those of Cilium's connectivity test. The first eleven are the tests of its early days, the others came later.
"""

from connectivity.suite.tests import TESTS
from connectivity.suite.words import Action, Test

__all__ = ["TESTS", "Action", "Test"]
