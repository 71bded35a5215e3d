"""The kernel side: tc programs in C, and the one door through which the other rooms use them.

In:        what the agent decides: endpoints, addresses and their identities, node settings.
Out:       packets delivered, dropped or tunnelled; monitor events in the perf event array `cilium_events`.
Elsewhere: observer/perf.py reads the events, model/ decodes them, mesh/ decides who has which address and identity.

    *.bpf.c        one program file per hook; include/ holds what they share
    datapath.py    the door: attach endpoints and devices, write maps, read counters
    programs.py    which programs and maps a node has, loaded and pinned
    endpoints.py   endpoint maps; settings.py what the programs read of the node; service_maps.py services
    policies.py    policy maps: encoded, and replaced as a whole
    loader.py      object files into the kernel, pinned by name
    handles.py     maps, programs and links by descriptor: look up, update, pin, run
    libbpf.py      libbpf through ctypes; every error is one line with its remedy
    maps.py        the maps' keys and values as Python sees them; a test compares them with the C side
"""
