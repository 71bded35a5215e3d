"""CEL expressions over flows (experimental.cel_expression of a filter).

In:        expression text from a stranger.
Out:       term.CelTerm (scan.py: Term), or InvalidFilter with the compiler's message.
Elsewhere: cel-python reads the text; which rows are asked at all, compile.py (one folder up) decides.
Source:    CEL language definition; error texts and limits of cel-go as Hubble 1.19 sets it up: container `flow`, one
           variable `_flow` of type flow.Flow, standard functions, no extensions.

cel-python's own evaluator knows neither protobuf messages nor types before it runs, and takes 200 µs to compare two
fields. So its parser is used, and the tree becomes typed Python closures here: 1 to 3 µs.
"""
