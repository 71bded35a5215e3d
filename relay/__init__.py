"""One stream of flows for a whole cluster: asks every node, merges by time.

In:        where the nodes are (a Peer service, or a list); their Observer and Columns services.
Out:       the same services for clients, with what happens to nodes said in the stream.
Elsewhere: observer/ serves one node; rpc/ moves the bytes. The relay looks at times only: which flows and which of
           their fields, decide the nodes, and messages pass through as the nodes encoded them.
"""
