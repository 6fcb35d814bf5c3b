"""The autograder as a service of JupyterHub: it grades what students submit to the exchange.

Data flows one way: the exchange's inbound folder (`inbound`) → what is to do (`decide`) → results
(`turns`, the engine) → gradebook, feedback and exchange (`reconcile`) → the page (`view`, `web`).
"""
