"""`flowscope connectivity test`: does the network do what its policies say, and do the flows say so too?

In:        a running lab with the workloads of lab/manifests/cilium-test.yaml; a relay.
Out:       progress as people know it from Cilium's test, a JUnit file, an exit code.
Elsewhere: mesh/ enforces what is tested here; flowscope/ is the client that reads the flows.

Every action is judged twice: by what its client got, and by the flows that were observed meanwhile.

    suite/        the tests: names, policies, who asks whom, what must happen
    cluster.py    who there is: pods, nodes, services, the outside world
    actions.py    one request of one client, carried out
    verdicts.py   what must happen, held against what did (pure)
    telescope.py  the flows of the relay, as they come
    witness.py    what is looked at besides: drop counters, logs, connections over restarts; prober.py is such a client
    runner.py     tests one by one; report.py says how they went
"""
