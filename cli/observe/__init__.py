"""`flowscope observe`: flows, agent events and debug events, from a server or a file.

In:        a Call with its flags.
Out:       text on stdout, node status and warnings on stderr.
Elsewhere: flags.py defines the flags; request.py builds requests; files.py reads files; stream.py asks servers;
           model/text makes the text.
"""
