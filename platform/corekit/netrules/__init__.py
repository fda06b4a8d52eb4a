"""Names, addresses and rules of the network: checked by the same code when they are written and when flows are judged.

`hosts` makes one host of what was said, `entries` reads a rule, `policy` the document of all rules of a sandbox, and
`decide` judges. Nothing here does I/O.
"""
