"""The dashboard: a web page of live flows and the map drawn from them.

In:        the relay's flows, as columns.
Out:       one page, and a WebSocket that pushes what the page shows; aggregation and filtering happen here.
Elsewhere: relay/ merges the nodes; model/ names and filters flows; static/ is the page itself.
"""
