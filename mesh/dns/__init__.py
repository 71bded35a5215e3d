"""The DNS proxy of a node: judges the queries of pods, and learns which addresses names have.

In:        queries of pods that the kernel hands to a transparent socket; dns rules; names in toFQDNs.
Out:       answers of the servers that were asked, or refusals; flows; addresses of names for the policy.
Elsewhere: bpf/ redirects; mesh/policy/ compiles rules; observer/ turns records into flows.

    main.py      the process `flowscope dns-proxy`: opens everything, closes everything
    udp.py, tcp.py    clients and servers by each protocol
    judge.py     who may ask what; patterns.py compares names
    wire.py, answers.py    messages
    link.py      tells the agent what was learned; the agent's side is keeper.py, which starts the process
    names.py     addresses of names, with their lifetimes; owned by the agent
    flows.py     access-log records for the observer
"""
