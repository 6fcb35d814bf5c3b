"""The autograder as a JupyterHub service that grades submissions in nbgrader's exchange.

Data flows one way: the exchange's inbound folder (`inbound`) → decisions (`decide`) → results
(`turns`, the engine) → gradebook, feedback and exchange (`reconcile`) → the page (`view`, `web`).
"""
